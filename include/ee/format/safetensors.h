// safetensors: u64 little-endian header length, JSON header, tensor bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ee/base/file.h"
#include "ee/format/dtype.h"

namespace ee::format {

struct TensorView {
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // into the file's memory map
};

// A memory-mapped file whose header has been checked: every tensor lies inside the file, its byte count is
// what dtype and shape imply, tensors neither overlap nor leave holes, names are unique. UserError otherwise.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const TensorView& at(const std::string& name) const;  // UserError: names tensor and file

 private:
  base::MappedFile file_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// What to write: bytes are asked for one tensor at a time, so that a file larger than memory can be written.
struct TensorToWrite {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  // Calls the given sink with the tensor's bytes, in order, in one or more pieces.
  std::function<void(const std::function<void(std::span<const std::byte>)>&)> produce;
};

// Writes and syncs `path` (not atomic by itself: write inside a base::AtomicDirectory).
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace ee::format
