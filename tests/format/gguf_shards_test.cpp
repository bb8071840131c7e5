#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "ee/base/error.h"
#include "ee/format/gguf.h"
#include "temp_folder.h"

namespace ee::format {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr const char* kNames[] = {"split-00001-of-00003.gguf", "split-00002-of-00003.gguf",
                                  "split-00003-of-00003.gguf"};

// Copies of the golden shards, to be damaged.
class GgufShardsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : kNames)
      fs::copy_file(fs::path(EE_SOURCE_DIR) / "tests/format/golden" / name, folder_ / name);
  }
  fs::path shard(int number) { return folder_ / kNames[number - 1]; }

  // Puts `value` where shard `number` has the number of metadata key `key`.
  template <typename T>
  void set(int number, const std::string& key, T value) {
    std::string bytes = base::read_text_file(shard(number));
    const size_t place = bytes.find(key) + key.size() + sizeof(uint32_t);  // behind the number of its type
    std::memcpy(bytes.data() + place, &value, sizeof(T));
    std::ofstream(shard(number), std::ios::binary) << bytes;
  }

  std::string error_of(int number) {
    try {
      GgufFile file(shard(number));
    } catch (const base::UserError& error) {
      return error.what();
    }
    return "no error";
  }

  TempFolder folder_;
};

TEST_F(GgufShardsTest, AnyOfThemOpensThemAll) {
  for (const int number : {1, 2, 3}) {
    const GgufFile file(shard(number));
    EXPECT_EQ(file.get<std::string>("a.string"), "in the first one") << number;
    EXPECT_EQ(file.path(), shard(1));
    ASSERT_EQ(file.tensors().size(), 5u) << number;
    for (int i = 0; i < 5; ++i) {
      const GgufTensor& tensor = file.at(fmt::format("t{}", i));
      EXPECT_EQ(file.path_of(tensor), shard(i / 2 + 1));
      std::vector<float> values(4);
      dequantize(tensor, values);
      EXPECT_THAT(values, Each(static_cast<float>(i)));
    }
  }
}

TEST_F(GgufShardsTest, TheOneThatIsMissingIsNamed) {
  fs::remove(shard(2));
  EXPECT_THAT(error_of(1), AllOf(HasSubstr(kNames[0]), HasSubstr("shard 1 of 3, but shard 2 is missing"),
                                 HasSubstr(shard(2).string())));
  EXPECT_THAT(error_of(3), HasSubstr("shard 3 of 3, but shard 2 is missing"));
}

TEST_F(GgufShardsTest, OneUnderAnotherNameIsRefused) {
  fs::rename(shard(1), folder_ / "model.gguf");
  try {
    GgufFile file(folder_ / "model.gguf");
    FAIL();
  } catch (const base::UserError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("model.gguf is shard 1 of 3"), HasSubstr("-00001-of-00003.gguf")));
  }
}

TEST_F(GgufShardsTest, OneOfAnotherModelIsRefused) {
  set<uint16_t>(2, "split.no", 2);
  EXPECT_THAT(error_of(1), AllOf(HasSubstr(kNames[1]),
                                 HasSubstr("should be shard 2 of 3, but its metadata says shard 3 of 3")));
  set<uint16_t>(2, "split.no", 1);
  set<uint16_t>(2, "split.count", 4);
  EXPECT_THAT(error_of(1), HasSubstr("its metadata says shard 2 of 4"));
  fs::copy_file(fs::path(EE_SOURCE_DIR) / "tests/format/golden/quants.gguf", shard(2),
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(error_of(1), HasSubstr("its metadata says nothing of shards"));
}

TEST_F(GgufShardsTest, ATensorInTwoShardsOrAnotherNumberOfThemIsRefused) {
  for (const int number : {1, 2, 3}) set<int32_t>(number, "split.tensors.count", 6);
  EXPECT_THAT(error_of(2), AllOf(HasSubstr("split.tensors.count is 6, but 5 tensors"), HasSubstr(kNames[0])));
  fs::copy_file(shard(1), shard(2), fs::copy_options::overwrite_existing);
  set<uint16_t>(2, "split.no", 1);
  EXPECT_THAT(error_of(1),
              AllOf(HasSubstr("tensor t0 in "), HasSubstr(shard(2).string()), HasSubstr("another shard")));
}

TEST_F(GgufShardsTest, NumbersThatNoSplitHasAreRefused) {
  set<uint16_t>(1, "split.no", 3);
  EXPECT_THAT(error_of(1), HasSubstr("split.no is not an integer from 0 to 2"));
}

TEST_F(GgufShardsTest, OneOfOneIsAFileOfItsOwnUnderAnyName) {
  set<uint16_t>(1, "split.count", 1);
  set<int32_t>(1, "split.tensors.count", 2);
  fs::rename(shard(1), folder_ / "split-00001-of-00001.gguf");
  EXPECT_EQ(GgufFile(folder_ / "split-00001-of-00001.gguf").tensors().size(), 2u);
  fs::rename(folder_ / "split-00001-of-00001.gguf", shard(1));
  EXPECT_EQ(GgufFile(shard(1)).tensors().size(), 2u);
  set<int32_t>(1, "split.tensors.count", 3);
  EXPECT_THAT(error_of(1), HasSubstr("split.tensors.count is 3, but 2 tensors"));
}

}  // namespace
}  // namespace ee::format
