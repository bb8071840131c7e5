#include "ee/format/gguf.h"

#include <array>
#include <functional>

#include "ee/base/error.h"
#include "ee/base/text.h"
#include "gguf_shards.h"
#include "gguf_types.h"

namespace ee::format {

using base::UserError;

namespace {

// All types of ggml as of GGUF version 3.
constexpr std::array<GgmlTypeInfo, 34> kTypes = {{
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 40},
    {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},
}};

// In the order of GgufValue's alternatives.
constexpr std::array<std::string_view, std::variant_size_v<GgufValue>> kValueNames = {
    "a boolean", "an integer",         "an integer of 2^63 or more", "a float",
    "a string",  "a list of integers", "a list of floats",           "a list of strings"};

template <typename T>
std::vector<std::string> keys_of(const std::map<std::string, T>& map) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys;
}

std::string nearest_hint(const std::string& name, const std::vector<std::string>& names) {
  const std::string near = base::nearest_name(name, names);
  return near.empty() ? "" : fmt::format("; the nearest name there is {}", near);
}

}  // namespace

const GgmlTypeInfo* find_ggml_type(GgmlType type) {
  for (const GgmlTypeInfo& info : kTypes) {
    if (info.number == static_cast<uint32_t>(type)) return &info;
  }
  return nullptr;
}

std::string to_string(GgmlType type) {
  const GgmlTypeInfo* info = find_ggml_type(type);
  return info ? std::string(info->name) : fmt::format("number {}", static_cast<uint32_t>(type));
}

int64_t GgufTensor::elements() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;  // the parser has seen to it that this fits
  return count;
}

GgufFile::GgufFile(const std::filesystem::path& path) {
  GgufShards shards = open_gguf_shards(path);
  files_ = std::move(shards.files);
  metadata_ = std::move(shards.all.metadata);
  tensors_ = std::move(shards.all.tensors);
}

const std::filesystem::path& GgufFile::path_of(const GgufTensor& tensor) const {
  for (const base::MappedFile& file : files_) {
    const std::byte *begin = file.bytes().data(), *end = begin + file.bytes().size();
    if (std::less_equal<>()(begin, tensor.bytes.data()) && std::less<>()(tensor.bytes.data(), end))
      return file.path();
  }
  return path();  // a tensor without bytes
}

void GgufFile::wrong_type(const std::string& key, size_t found, size_t expected) const {
  throw UserError("{}: metadata key {} is {}, expected {}", path().string(), key, kValueNames[found],
                  kValueNames[expected]);
}

void GgufFile::missing(const std::string& key, size_t expected) const {
  throw UserError("{}: metadata key {} is missing (expected {}){}", path().string(), key,
                  kValueNames[expected], nearest_hint(key, keys_of(metadata_)));
}

const GgufTensor& GgufFile::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  throw UserError("tensor {} is missing in {}{}{}", name, path().string(),
                  files_.size() > 1 ? fmt::format(" and its {} other shards", files_.size() - 1) : "",
                  nearest_hint(name, keys_of(tensors_)));
}

}  // namespace ee::format
