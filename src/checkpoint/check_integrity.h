// A model folder's tensors against the checksums of its ee_config.json.
#pragma once

#include <filesystem>

#include "check_memory.h"
#include "ee/checkpoint/integrity.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/config/exit_spec.h"
#include "tensor_checksums.h"

namespace ee::checkpoint {

struct FolderTensors {
  const TensorFiles* backbone;
  const TensorFiles* exits;
  const TensorFiles* gates;  // null: none
};

// UserError names the tensors that are not what their checksums say, and what to do. Of several processes on
// a machine one reads the files and the others take over what it found, faults included.
Integrity check_integrity(const std::filesystem::path& folder, const config::Checksums& checksums,
                          const FolderTensors& tensors, Check check);

// The checksums of all tensors in `files`, and these as they were read.
struct ReadFiles {
  TensorChecksums checksums;
  std::vector<CheckedFile> files;
};
ReadFiles read_checksums(const TensorFiles& files);

// For the files of `folder` that are still the ones that were read, and not copies of them.
void remember_read(const std::filesystem::path& folder, std::vector<CheckedFile> read);

}  // namespace ee::checkpoint
