// Whether a model's tensors are, byte for byte, what ee_config.json has checksums of.
#pragma once

#include <cstdint>

namespace ee::checkpoint {

enum class Check {
  unless_remembered,  // every byte of the files that have not passed before as they are now
  always,             // every byte
  never,              // nothing but the backbone's fingerprint, which samples
};

// What is known of a folder that could be opened.
enum class Integrity {
  no_checksums,  // it has no exits, or was written before there were checksums
  not_checked,   // Check::never
  remembered,    // no byte was read: all files have passed before, and are as they were then
  checked,       // all tensors of at least one file were read, and are what they should be
};

}  // namespace ee::checkpoint
