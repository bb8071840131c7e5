#include "ee/infer/batch_generate.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "ee/base/error.h"
#include "ee/infer/not_finite.h"
#include "ee/model/decode_step.h"
#include "engine_parts.h"

namespace ee::infer {

namespace {

// One sequence on its way: a row of the batch.
struct Slot {
  size_t request = 0;
  int64_t length = 0;  // tokens in the KV caches
  std::optional<Sampler> sampler;
  BatchAnswer answer;
};

std::string name_of(std::span<const BatchRequest> requests, size_t index) {
  return requests[index].name.empty() ? fmt::format("prompt {}", index + 1) : requests[index].name;
}

void check_requests(std::span<const BatchRequest> requests) {
  if (requests.empty()) {
    throw base::UserError("there is no prompt to answer; give at least one");
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].prompt.empty()) {
      throw base::UserError("{} has no tokens; give some text", name_of(requests, i));
    }
  }
}

int64_t longest_sequence(std::span<const BatchRequest> requests, const BatchOptions& options) {
  size_t longest = 0;
  for (const BatchRequest& request : requests) {
    longest = std::max(longest, request.prompt.size());
  }
  return static_cast<int64_t>(longest) + options.max_new_tokens;
}

// How many tokens all prompts have in common at their beginning (a chat template's system message), short of
// a whole prompt: its last token is run for what it predicts.
size_t shared_tokens(std::span<const BatchRequest> requests) {
  const std::vector<int64_t>& first = requests[0].prompt;
  size_t shared = first.size() - 1;
  for (const BatchRequest& request : requests) {
    shared = std::min(shared, request.prompt.size() - 1);
    shared = static_cast<size_t>(
        std::mismatch(first.begin(), first.begin() + static_cast<int64_t>(shared), request.prompt.begin())
            .first -
        first.begin());
  }
  return requests.size() > 1 ? shared : 0;
}

class BatchDecoder {
 public:
  BatchDecoder(const model::Backbone& backbone, std::span<const BatchRequest> requests,
               std::span<const int64_t> ends, const BatchOptions& options)
      : backbone_(backbone), requests_(requests), ends_(ends), options_(options) {
    EE_CHECK(static_cast<int64_t>(backbone.layers.size()) == backbone.config.layers,
             "{} of {} layers are loaded", backbone.layers.size(), backbone.config.layers);
    const int64_t capacity = longest_sequence(requests, options);
    EE_CHECK(capacity <= backbone.config.max_positions, "sequences of {} tokens, the model has {} positions",
             capacity, backbone.config.max_positions);
    const int64_t batch = std::min(options.batch, static_cast<int64_t>(requests.size()));
    for (size_t i = 0; i < backbone.layers.size(); ++i) {
      caches_.push_back(
          model::LayerCache::allocate(backbone.config, batch, capacity, backbone.options(), backbone.ranks));
      caches_.back().k.zero_();  // what is masked must be finite
      caches_.back().v.zero_();
    }
    slots_.resize(static_cast<size_t>(batch));
  }

  void run(const std::function<void(size_t request, BatchAnswer answer)>& on_answer) {
    const c10::InferenceMode no_autograd;
    run_prefix();
    size_t next = 0;  // request
    do {
      for (size_t i = 0; i < slots_.size();) {
        if (slots_[i].answer.tokens.empty()) {  // free
          if (next == requests_.size()) {
            remove(i);
            continue;
          }
          begin(i, next++);
        }
        if (has_ended(slots_[i])) {
          on_answer(slots_[i].request, std::exchange(slots_[i].answer, {}));
        } else {
          ++i;
        }
      }
      if (!slots_.empty()) {
        step();
      }
    } while (!slots_.empty());
  }

 private:
  // What all prompts begin with is computed once.
  void run_prefix() {
    const size_t shared = shared_tokens(requests_);
    if (shared > 0) {
      prefix_ = layer_caches(backbone_, static_cast<int64_t>(shared));
      run_tokens(std::span(requests_[0].prompt).first(shared), prefix_);
    }
  }

  // Runs a prompt through the slot's part of the caches and chooses the first token of its answer.
  void begin(size_t index, size_t request) {
    const BatchRequest& what = requests_[request];
    SamplingOptions sampling = options_.sampling;
    sampling.seed = what.seed;
    slots_[index] = {.request = request,
                     .length = static_cast<int64_t>(what.prompt.size()),
                     .sampler = Sampler(sampling),
                     .answer = {}};
    std::vector<model::LayerCache> parts;
    for (size_t layer = 0; layer < caches_.size(); ++layer) {
      const auto row = static_cast<int64_t>(index);
      parts.push_back({.k = caches_[layer].k.narrow(0, row, 1), .v = caches_[layer].v.narrow(0, row, 1)});
      if (!prefix_.empty()) {
        parts.back().append(prefix_[layer].k, prefix_[layer].v);
      }
    }
    const auto shared = static_cast<size_t>(parts.front().length);
    const at::Tensor rows = run_tokens(std::span(what.prompt).subspan(shared), parts);
    choose(slots_[index], final_logits(backbone_, rows.narrow(1, rows.size(1) - 1, 1))[0]);
  }

  // More tokens of one sequence through all layers: [1, tokens, hidden].
  at::Tensor run_tokens(std::span<const int64_t> tokens, std::vector<model::LayerCache>& caches) const {
    at::Tensor rows = backbone_.embed(as_ids(backbone_, tokens));
    for (size_t layer = 0; layer < caches.size(); ++layer) {
      rows = model::decoder_layer(backbone_.config, backbone_.layers[layer], rows, backbone_.rope,
                                  &caches[layer], backbone_.ranks)
                 .output;
    }
    return rows;
  }

  // One more token for every slot.
  void step() {
    std::vector<int64_t> tokens, lengths;
    for (const Slot& slot : slots_) {
      tokens.push_back(slot.answer.tokens.back());
      lengths.push_back(slot.length);
    }
    const model::StepRows where(backbone_.rope, lengths);
    at::Tensor rows = backbone_.embed(as_ids(backbone_, tokens).transpose(0, 1));  // [slots, 1, hidden]
    for (size_t layer = 0; layer < caches_.size(); ++layer) {
      rows = model::decode_step(backbone_.config, backbone_.layers[layer], rows, where, caches_[layer],
                                backbone_.ranks)
                 .output;
    }
    const at::Tensor logits = final_logits(backbone_, rows);
    for (size_t i = 0; i < slots_.size(); ++i) {
      ++slots_[i].length;
      choose(slots_[i], logits[static_cast<int64_t>(i)]);
    }
  }

  // logits [vocab] f32
  void choose(Slot& slot, const at::Tensor& logits) {
    const auto most_probable = logits.argmax().item<int64_t>();
    if (!std::isfinite(logits[most_probable].item<float>())) {  // NaN, if any logit is
      throw NotFinite(NotFinite::Part::logits, NotFinite::kModelsHead, slot.length - 1,
                      name_of(requests_, slot.request));
    }
    const int64_t token = slot.sampler->sample(logits, most_probable);
    slot.answer.tokens.push_back(token);
    if (std::ranges::find(ends_, token) != ends_.end()) {
      slot.answer.finish = FinishReason::eos;
    }
  }

  bool has_ended(const Slot& slot) const {
    return slot.answer.finish == FinishReason::eos ||
           std::ssize(slot.answer.tokens) == options_.max_new_tokens;
  }

  // The last slot takes this one's place, and the batch is one smaller from now on.
  void remove(size_t index) {
    const auto last = static_cast<int64_t>(slots_.size()) - 1, to = static_cast<int64_t>(index);
    for (model::LayerCache& cache : caches_) {
      for (at::Tensor* part : {&cache.k, &cache.v}) {
        if (to < last) {
          part->select(0, to).copy_(part->select(0, last));
        }
        *part = part->narrow(0, 0, last);
      }
    }
    std::swap(slots_[index], slots_.back());
    slots_.pop_back();
  }

  const model::Backbone& backbone_;
  std::span<const BatchRequest> requests_;
  std::span<const int64_t> ends_;
  const BatchOptions& options_;
  std::vector<Slot> slots_;
  std::vector<model::LayerCache> caches_;  // of each layer; row i is slot i's
  std::vector<model::LayerCache> prefix_;  // of each layer, full; empty when prompts share nothing
};

}  // namespace

void check_batch_options(const BatchOptions& options) {
  check_sampling(options.sampling);
  if (options.batch < 1) {
    throw base::UserError("batch is {}, expected at least 1", options.batch);
  }
  if (options.max_new_tokens < 1) {
    throw base::UserError("max-new-tokens is {}, expected at least 1", options.max_new_tokens);
  }
}

void generate_batch(const model::Backbone& backbone, std::span<const BatchRequest> requests,
                    std::span<const int64_t> ends, const BatchOptions& options,
                    const std::function<void(size_t request, BatchAnswer answer)>& on_answer) {
  check_batch_options(options);
  check_requests(requests);
  BatchDecoder(backbone, requests, ends, options).run(on_answer);
}

}  // namespace ee::infer
