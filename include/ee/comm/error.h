// What a run of several processes can fail with, besides the user's mistakes.
#pragma once

#include <string>

#include "ee/base/temporary_failure.h"

namespace ee::comm {

// An operation between ranks did not happen: a rank died, stalled, left, or the ranks disagree about what
// they are doing. The message names the operation, its group, this rank, shape and dtype, the other rank if
// one is known, and the context that World::set_context gave ("step 12"). Exit code 75
// (base::kExitTemporaryFailure): the run may be started again from its last checkpoint.
class CommError : public base::TemporaryFailure {
 public:
  using base::TemporaryFailure::TemporaryFailure;
};

}  // namespace ee::comm
