#include "ee/format/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "ee/base/error.h"
#include "temp_folder.h"

namespace ee::format {
namespace {

using ::testing::HasSubstr;

// A safetensors file from a header text and data bytes, without any check.
std::string raw_file(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text + header + std::string(data_bytes, 'x');
}

TensorToWrite tensor(std::string name, DType dtype, std::vector<int64_t> shape, std::string bytes) {
  return {std::move(name), dtype, std::move(shape),
          [bytes = std::move(bytes)](const auto& sink) { sink(std::as_bytes(std::span(bytes))); }};
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(Safetensors, ReadsBackWhatWasWritten) {
  const TempFolder folder;
  const auto path = folder / "a.safetensors";
  write_safetensors(path,
                    {tensor("bytes", DType::u8, {3}, "abc"), tensor("empty", DType::f32, {0, 4}, ""),
                     tensor("scalar", DType::bf16, {}, "zz"), tensor("wide", DType::f32, {1, 2}, "12345678")},
                    {{"format", "pt"}});
  const SafetensorsFile file(path);
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(text_of(file.at("bytes").bytes), "abc");
  EXPECT_EQ(text_of(file.at("scalar").bytes), "zz");
  EXPECT_TRUE(file.at("scalar").shape.empty());
  EXPECT_EQ(text_of(file.at("wide").bytes), "12345678");
  EXPECT_EQ(file.at("wide").shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(file.at("wide").dtype, DType::f32);
  EXPECT_EQ(file.at("empty").bytes.size(), 0u);
}

TEST(Safetensors, AlignsEveryTensorToItsElementType) {
  const TempFolder folder;
  write_safetensors(folder / "a",
                    {tensor("a", DType::u8, {3}, "abc"), tensor("b", DType::f64, {1}, "12345678"),
                     tensor("c", DType::bf16, {1}, "zz")});
  const SafetensorsFile file(folder / "a");
  for (const auto& [name, view] : file.tensors())
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.bytes.data()) % size_of(view.dtype), 0u) << name;
}

TEST(Safetensors, WritesHeadersThatTheReferenceImplementationWrites) {
  const TempFolder folder;
  write_safetensors(folder / "a", {tensor("w", DType::f16, {1, 2}, "abcd")});
  std::string expected = R"({"w":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}})";
  expected.resize((expected.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(base::read_text_file(folder / "a"), raw_file(expected, 0) + "abcd");
}

// The reference implementation reads null as no metadata, and so do we.
TEST(Safetensors, MetadataMayBeNull) {
  const TempFolder folder;
  std::ofstream(folder / "a.safetensors", std::ios::binary)
      << raw_file(R"({"__metadata__":null,"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2);
  const SafetensorsFile file(folder / "a.safetensors");
  EXPECT_TRUE(file.metadata().empty());
  EXPECT_EQ(text_of(file.at("w").bytes), "xx");
}

TEST(Safetensors, NamesMissingTensorAndItsNeighbour) {
  const TempFolder folder;
  write_safetensors(folder / "a.st", {tensor("model.norm.weight", DType::u8, {1}, "a")});
  const SafetensorsFile file(folder / "a.st");
  try {
    file.at("model.norms.weight");
    FAIL();
  } catch (const base::UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("model.norms.weight is missing"));
    EXPECT_THAT(error.what(), HasSubstr("a.st"));
    EXPECT_THAT(error.what(), HasSubstr("nearest name there is model.norm.weight"));
  }
}

TEST(Safetensors, RefusesAProducerThatLies) {
  const TempFolder folder;
  EXPECT_THROW(write_safetensors(folder / "a", {tensor("w", DType::f32, {2}, "abcd")}), base::InternalError);
}

struct Hostile {
  const char* name;
  std::string header;
  size_t data_bytes;
  const char* complaint;
};

class HostileSafetensors : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileSafetensors, IsAUserErrorThatSaysWhatLies) {
  const TempFolder folder;
  const auto path = folder / "bad.safetensors";
  std::ofstream(path, std::ios::binary) << raw_file(GetParam().header, GetParam().data_bytes);
  try {
    const SafetensorsFile file(path);
    FAIL() << "accepted";
  } catch (const base::UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr(GetParam().complaint));
    EXPECT_THAT(error.what(), HasSubstr("bad.safetensors"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Headers, HostileSafetensors,
    ::testing::Values(
        Hostile{"NotJson", "{hello", 0, "not valid JSON"}, Hostile{"EmptyHeader", "", 0, "not valid JSON"},
        Hostile{"NotUtf8", "{\"\xff\":1}", 0, "not valid JSON"},
        Hostile{"NumberTooLarge", R"({"w":1e999})", 0, "not valid JSON"},
        Hostile{"NotAnObject", "[1]", 0, "expected a JSON object"},
        Hostile{"DeeplyNested", std::string(200000, '['), 0, "not valid JSON"},
        Hostile{"EntryNotAnObject", R"({"w":3})", 0, "expected an object"},
        Hostile{"NoDtype", R"({"w":{"shape":[1],"data_offsets":[0,4]}})", 4, "no string \"dtype\""},
        Hostile{"NoShape", R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4, "no list \"shape\""},
        Hostile{"NoOffsets", R"({"w":{"dtype":"F32","shape":[1]}})", 4, "no list \"data_offsets\""},
        Hostile{"OneOffset", R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "has 1 numbers"},
        Hostile{"UnknownDtype", R"({"w":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}})", 4,
                "unknown dtype \"F7\""},
        Hostile{"NegativeDim", R"({"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4,
                "\"shape\"[0]"},
        Hostile{"FractionalDim", R"({"w":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4,
                "\"shape\"[0]"},
        Hostile{"DimsOverflow",
                R"({"w":{"dtype":"F32","shape":[4294967296,4294967296,1],"data_offsets":[0,0]}})", 0,
                "larger than any file"},
        Hostile{"DimOverInt64", R"({"w":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,0]}})",
                0, "\"shape\"[0]"},
        Hostile{"WrongByteCount", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
                "has 4 bytes, but shape [2] of F32 needs 8"},
        Hostile{"OutOfFile", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4,
                "outside the file"},
        Hostile{"BackwardOffsets", R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4,
                "outside the file"},
        Hostile{"NegativeOffset", R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4,
                "\"data_offsets\"[0]"},
        Hostile{"Overlap",
                R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                6, "tensors a and b overlap"},
        Hostile{"HoleBetween",
                R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}})",
                6, "2 bytes between a and tensor b"},
        Hostile{"HoleAtFront", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3,
                "1 bytes between the header and tensor a"},
        Hostile{"HoleAtEnd", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 5,
                "the last 3 bytes belong to no tensor"},
        Hostile{"DuplicateName",
                R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                2, "\"a\" appears twice"},
        Hostile{"MetadataNotStrings", R"({"__metadata__":{"a":1}})", 0, "is not a string"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Safetensors, RefusesHeaderLengthBeyondTheFile) {
  const TempFolder folder;
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 40, ~uint64_t{0}}) {
    std::ofstream(folder / "a", std::ios::binary).write(reinterpret_cast<const char*>(&length), 8) << "{}";
    EXPECT_THROW(SafetensorsFile(folder / "a"), base::UserError) << length;
  }
}

TEST(Safetensors, RefusesEveryPrefixOfAFile) {
  const TempFolder folder;
  write_safetensors(folder / "whole",
                    {tensor("a", DType::u8, {5}, "abcde"), tensor("b", DType::i8, {2}, "fg")});
  const std::string whole = base::read_text_file(folder / "whole");
  for (size_t length = 0; length < whole.size(); ++length) {
    std::ofstream(folder / "prefix", std::ios::binary) << whole.substr(0, length);
    EXPECT_THROW(SafetensorsFile(folder / "prefix"), base::UserError) << length;
  }
}

TEST(Safetensors, SurvivesEveryFlippedByteOfTheHeader) {
  const TempFolder folder;
  write_safetensors(folder / "whole",
                    {tensor("a", DType::u8, {5}, "abcde"), tensor("b", DType::i8, {2}, "fg")});
  const std::string whole = base::read_text_file(folder / "whole");
  size_t refused = 0;
  for (size_t i = 0; i < whole.size() - 7; ++i) {
    for (const int flip : {1, 0x10, 0x80}) {
      std::string bad = whole;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      std::ofstream(folder / "bad", std::ios::binary) << bad;
      try {
        SafetensorsFile file(folder / "bad");
      } catch (const base::UserError&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, whole.size());
}

TEST(DType, SpellsAndSizesRoundTrip) {
  for (const char* name : {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"})
    EXPECT_EQ(to_string(parse_dtype(name)), name);
  EXPECT_EQ(size_of(DType::bf16), 2u);
  EXPECT_EQ(size_of(DType::i64), 8u);
  EXPECT_THROW(parse_dtype("f32"), base::UserError);
}

}  // namespace
}  // namespace ee::format
