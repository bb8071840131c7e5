// An operation in words: for errors, for the watch's table, and for the strict mode's comparison.
#pragma once

#include <c10/core/ScalarType.h>

#include <chrono>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace ee::comm {

struct Operation {
  std::string name;  // "all_reduce(sum)", "send"
  std::string group;
  std::vector<int> ranks = {};   // of the group, in the world
  std::string tensor = {};       // "float32 [4, 5]"; empty for a barrier
  std::vector<int> others = {};  // world ranks that take part, besides this one
  int peer = -1;                 // the world rank at the other side of a message
  int tag = 0;                   // of a message
  bool is_message() const { return peer >= 0; }
};

std::string describe(const Operation& operation);  // "send of float32 [4, 5] to rank 2 (tag 0) in group pp"
std::string describe_tensor(at::ScalarType dtype, const std::vector<int64_t>& shape);

// What this rank is doing at the moment. Any thread.
class Activity {
 public:
  using Clock = std::chrono::steady_clock;

  void set_context(std::string context);
  std::string context() const;   // "step 12: ", or empty
  std::string describe() const;  // "step 12: send of ..., for 3.2 s"

  // While it lives, this rank waits in `operation`.
  class Scope {
   public:
    Scope(Activity& activity, std::shared_ptr<const Operation> operation);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    friend class Activity;
    struct Entry {
      std::shared_ptr<const Operation> operation;
      Clock::time_point since;
    };
    Activity& activity_;
    std::list<Entry>::iterator entry_;
  };

 private:
  mutable std::mutex mutex_;
  std::string context_;
  std::list<Scope::Entry> waiting_;
  std::shared_ptr<const Operation> last_;
};

}  // namespace ee::comm
