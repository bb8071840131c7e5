// What the trainer asks of its own process.
#pragma once

#include <cstdint>

namespace ee::train {

// The largest resident set so far, in bytes (Linux: VmHWM); 0 where the system does not tell.
int64_t peak_memory();

// The resident set now, in bytes; 0 where the system does not tell.
int64_t resident_memory();

// Makes glibc keep freed buffers instead of giving them back to the kernel: a step allocates the same large
// buffers as the one before, and faulting their pages in again would cost more than filling them. Elsewhere
// it does nothing.
void keep_freed_memory();

}  // namespace ee::train
