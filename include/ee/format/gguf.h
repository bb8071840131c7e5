// GGUF, versions 2 and 3, little-endian: metadata and tensors of a llama.cpp model file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "ee/base/file.h"

namespace ee::format {

// ggml's numbers for the element types that dequantize() knows. A tensor may have another of ggml's types: it
// is listed, and refused by dequantize().
enum class GgmlType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bf16 = 30,
};

std::string to_string(GgmlType type);  // ggml's spelling: "Q4_K"

// Integers of every width are int64_t (uint64_t only when they do not fit), both float widths are double.
// Lists: of integers or booleans, of floats, of strings.
using GgufValue = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string>>;

struct GgufTensor {
  std::string name;
  GgmlType type;
  std::vector<int64_t> shape;        // outermost first, as Hugging Face counts: [rows, columns] of a matrix
  std::span<const std::byte> bytes;  // into the file's memory map; rows one after the other

  int64_t columns() const { return shape.empty() ? 1 : shape.back(); }  // elements of one row
  int64_t elements() const;
};

// A memory-mapped file whose sizes have been checked: every string, list and tensor lies inside the file,
// tensors have the bytes that type and shape imply and do not overlap, names are unique. UserError otherwise.
// Where a model is split over several files (llama.cpp's split.no, split.count), any of them opens them all:
// metadata is the first one's, tensors are everybody's. UserError names a shard that is missing, has another
// number or another count of tensors. Note that the rows of q and k projections are permuted in architecture
// "llama"; undoing that is up to the caller.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return files_.front().path(); }  // the first shard's
  const std::filesystem::path& path_of(const GgufTensor& tensor) const;        // the shard that holds it
  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor>& tensors() const { return tensors_; }

  // T is one of GgufValue's alternatives. UserError names key and file: the key is absent (get only), or its
  // value has another type.
  template <typename T>
  const T& get(const std::string& key) const {
    if (const T* value = find<T>(key)) return *value;
    missing(key, GgufValue(T{}).index());
  }
  template <typename T>
  const T* find(const std::string& key) const {  // nullptr: absent
    const auto found = metadata_.find(key);
    if (found == metadata_.end()) return nullptr;
    if (const T* value = std::get_if<T>(&found->second)) return value;
    wrong_type(key, found->second.index(), GgufValue(T{}).index());
  }

  const GgufTensor& at(const std::string& name) const;  // UserError: names tensor and file

 private:
  // `found`, `expected`: indices of GgufValue's alternatives.
  [[noreturn]] void wrong_type(const std::string& key, size_t found, size_t expected) const;
  [[noreturn]] void missing(const std::string& key, size_t expected) const;

  std::vector<base::MappedFile> files_;  // all shards in their order
  std::map<std::string, GgufValue> metadata_;
  std::map<std::string, GgufTensor> tensors_;
};

// What dequantize() would say, naming `file` as well: for a look at every tensor before the first is read.
void check_dequantizable(const GgufTensor& tensor, const std::filesystem::path& file);

// Writes the tensor's values, row-major; out.size() == elements(). The results are those of gguf-py bit for
// bit, on every machine. UserError names the tensor when its type is none of GgmlType's.
void dequantize(const GgufTensor& tensor, std::span<float> out);

// The same for rows [first_row, first_row + rows) of the tensor seen as [elements() / columns(), columns()];
// out.size() == rows * columns(). Thread-safe.
void dequantize_rows(const GgufTensor& tensor, int64_t first_row, int64_t rows, std::span<float> out);

}  // namespace ee::format
