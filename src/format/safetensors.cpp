#include "ee/format/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "ee/base/error.h"
#include "ee/base/text.h"
#include "json_text.h"

namespace ee::format {

using base::UserError;
using Json = nlohmann::json;

namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr std::string_view kMetadataName = "__metadata__";

// Where a tensor's bytes lie, counted from the end of the header.
struct Placement {
  uint64_t begin, end;
  std::string name;
};

std::string_view read_header(const base::MappedFile& file) {
  const auto bytes = file.bytes();
  if (bytes.size() < kLengthBytes)
    throw UserError("{} is {} bytes long, too short for a safetensors file; is it truncated?",
                    file.path().string(), bytes.size());
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes)
    throw UserError(
        "{}: its first 8 bytes promise a header of {} bytes, but the file has {} in all; it is "
        "truncated or not a safetensors file",
        file.path().string(), length, bytes.size());
  return {reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length};
}

uint64_t unsigned_at(const Json& list, size_t i, const std::string& where, const char* key) {
  const Json& value = list[i];
  if (!value.is_number_unsigned() || value.get<uint64_t>() > std::numeric_limits<int64_t>::max())
    throw UserError("{}: \"{}\"[{}] is not a whole number from 0 to 2^63-1", where, key, i);
  return value.get<uint64_t>();
}

const Json& list_of(const Json& entry, const std::string& where, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) throw UserError("{}: has no list \"{}\"", where, key);
  return *found;
}

DType dtype_of(const Json& entry, const std::string& where) {
  const auto found = entry.find("dtype");
  if (found == entry.end() || !found->is_string()) throw UserError("{}: has no string \"dtype\"", where);
  try {
    return parse_dtype(found->get_ref<const std::string&>());
  } catch (const UserError& error) {
    throw UserError("{}: {}", where, error.what());
  }
}

// Elements times size, or UserError when that does not fit in 63 bits.
uint64_t byte_count(const std::vector<int64_t>& shape, DType dtype, const std::string& where) {
  int64_t bytes = static_cast<int64_t>(size_of(dtype));
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes))
      throw UserError("{}: shape [{}] is larger than any file", where, fmt::join(shape, ", "));
  }
  return static_cast<uint64_t>(bytes);
}

Placement read_entry(const std::string& name, const Json& entry, std::span<const std::byte> data,
                     const std::string& where, TensorView& view) {
  if (!entry.is_object()) throw UserError("{}: expected an object with dtype, shape, data_offsets", where);
  view.dtype = dtype_of(entry, where);
  const Json& shape = list_of(entry, where, "shape");
  for (size_t i = 0; i < shape.size(); ++i)
    view.shape.push_back(static_cast<int64_t>(unsigned_at(shape, i, where, "shape")));
  const Json& offsets = list_of(entry, where, "data_offsets");
  if (offsets.size() != 2)
    throw UserError("{}: \"data_offsets\" has {} numbers, expected 2", where, offsets.size());
  const uint64_t begin = unsigned_at(offsets, 0, where, "data_offsets");
  const uint64_t end = unsigned_at(offsets, 1, where, "data_offsets");
  if (begin > end || end > data.size())
    throw UserError(
        "{}: \"data_offsets\" [{}, {}] lie outside the file's {} bytes of data; it is truncated or "
        "corrupt",
        where, begin, end, data.size());
  const uint64_t expected = byte_count(view.shape, view.dtype, where);
  if (end - begin != expected)
    throw UserError("{}: has {} bytes, but shape [{}] of {} needs {}", where, end - begin,
                    fmt::join(view.shape, ", "), to_string(view.dtype), expected);
  view.bytes = data.subspan(begin, end - begin);
  return {begin, end, name};
}

void check_no_overlap_no_hole(std::vector<Placement>& placements, uint64_t data_bytes,
                              const std::string& file) {
  std::sort(placements.begin(), placements.end(), [](const Placement& a, const Placement& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t covered = 0;
  std::string previous = "the header";
  for (const Placement& placement : placements) {
    if (placement.begin < covered)
      throw UserError("{}: tensors {} and {} overlap; the file is corrupt", file, previous, placement.name);
    if (placement.begin > covered)
      throw UserError("{}: {} bytes between {} and tensor {} belong to no tensor; the file is corrupt", file,
                      placement.begin - covered, previous, placement.name);
    covered = placement.end;
    previous = placement.name;
  }
  if (covered != data_bytes)
    throw UserError("{}: the last {} bytes belong to no tensor; the file is corrupt", file,
                    data_bytes - covered);
}

std::map<std::string, std::string> read_metadata(const Json& entry, const std::string& where) {
  if (entry.is_null()) return {};  // as in the reference implementation: no metadata
  if (!entry.is_object()) throw UserError("{}: __metadata__ is not an object", where);
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) throw UserError("{}: __metadata__ \"{}\" is not a string", where, key);
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const std::string_view header = read_header(file_);
  const auto data = file_.bytes().subspan(kLengthBytes + header.size());
  const std::string where = path.string() + ": header";
  const Json json = parse_strict_json(header, where);
  if (!json.is_object()) throw UserError("{}: expected a JSON object of tensors", where);
  std::vector<Placement> placements;
  for (const auto& [name, entry] : json.items()) {
    if (name == kMetadataName) {
      metadata_ = read_metadata(entry, where);
      continue;
    }
    TensorView view{};
    placements.push_back(
        read_entry(name, entry, data, fmt::format("tensor {} in {}", name, path.string()), view));
    tensors_.emplace(name, std::move(view));
  }
  check_no_overlap_no_hole(placements, data.size(), path.string());
}

const TensorView& SafetensorsFile::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, view] : tensors_) names.push_back(known);
  const std::string near = base::nearest_name(name, names);
  throw UserError("tensor {} is missing in {}{}", name, path().string(),
                  near.empty() ? "" : fmt::format("; the nearest name there is {}", near));
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  // Wide element types first: with the header padded to 8 bytes every tensor is then aligned to its own type.
  std::vector<const TensorToWrite*> order;
  for (const TensorToWrite& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
    return size_of(a->dtype) > size_of(b->dtype);
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadataName] = metadata;
  uint64_t offset = 0;
  std::set<std::string> names;
  for (const TensorToWrite* tensor : order) {
    EE_CHECK(tensor->name != kMetadataName && names.insert(tensor->name).second, "tensor name {} twice",
             tensor->name);
    const uint64_t bytes = byte_count(tensor->shape, tensor->dtype, "tensor " + tensor->name);
    header[tensor->name] = {{"dtype", to_string(tensor->dtype)},
                            {"shape", tensor->shape},
                            {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();

  base::OutputFile out(path);
  out.write(std::as_bytes(std::span(&length, 1)));
  out.write(text);
  for (const TensorToWrite* tensor : order) {
    uint64_t written = 0;
    tensor->produce([&](std::span<const std::byte> bytes) {
      written += bytes.size();
      out.write(bytes);
    });
    const uint64_t expected = byte_count(tensor->shape, tensor->dtype, "tensor " + tensor->name);
    EE_CHECK(written == expected, "tensor {}: produced {} bytes, shape and dtype need {}", tensor->name,
             written, expected);
  }
  out.close();
}

}  // namespace ee::format
