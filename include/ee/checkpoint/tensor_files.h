// All tensors of a folder's safetensors files (single, or sharded by model.safetensors.index.json) by name.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ee/format/safetensors.h"
#include "ee/model/tensor_table.h"

namespace ee::checkpoint {

at::ScalarType to_torch(format::DType dtype);
format::DType from_torch(at::ScalarType dtype);

class TensorFiles {
 public:
  // The backbone of a Hugging Face folder. UserError: no safetensors file, index that names absent files or
  // tensors.
  static TensorFiles open_folder(const std::filesystem::path& folder);
  static TensorFiles open_file(const std::filesystem::path& file);

  bool contains(const std::string& name) const { return index_.contains(stored_name(name)); }
  const format::TensorView& at(const std::string& name) const;           // UserError: missing
  const std::map<std::string, size_t>& names() const { return index_; }  // sorted; value: which file
  const std::vector<format::SafetensorsFile>& files() const { return files_; }
  const std::filesystem::path& file_of(const std::string& name) const;  // of a tensor that is there

  // From now on the tensor that is stored as `stored` is found under `name`, too; names() stays as it was.
  void add_name(const std::string& name, const std::string& stored) { other_names_[name] = stored; }

  // The bytes as a tensor that aliases the memory map (read-only; valid while this object lives).
  at::Tensor alias(const std::string& name) const;
  // A copy of a slice on `device` in `dtype`; nothing else of the tensor is read, and the mapped pages are
  // let go again.
  at::Tensor read(const std::string& name, const parallel::Slice& slice, at::Device device,
                  at::ScalarType dtype) const;
  // Bytes of tensors that read() has read.
  int64_t bytes_read() const { return bytes_read_; }

 private:
  const std::string& stored_name(const std::string& name) const;

  std::vector<format::SafetensorsFile> files_;
  std::map<std::string, size_t> index_;
  std::map<std::string, std::string> other_names_;
  mutable int64_t bytes_read_ = 0;
};

// A look at the last of so many decoder layers, before anything is made for each of them. UserError: there is
// none.
void check_has_layers(const TensorFiles& files, int64_t layers);

// Every entry of `table` must be there with its shape and a float dtype, and (when `exact`) nothing else.
// UserError lists the first problem of each kind: tensor, file, expected and found shape.
void check_against_table(const TensorFiles& files, const std::vector<model::TensorEntry>& table, bool exact);

}  // namespace ee::checkpoint
