// What libee_cuda.so exports besides cuda_plugin.h: process groups over NCCL. For those who see c10d.
#pragma once

#include <cstdint>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

extern "C" {
// A ProcessGroupNCCL of `size` ranks that meet at `store`, on GPU `device`; the caller owns it. It has a
// communication stream of its own and makes the current stream wait where results are used. An operation that
// a rank does not join within `timeout_ms` ends this process: NCCL cannot be interrupted otherwise. Throws
// c10::Error.
c10d::Backend* ee_make_nccl(c10d::Store* store, int rank, int size, int device, int64_t timeout_ms);
}
