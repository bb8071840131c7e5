// Early-exit decoding of one sequence by pipeline stages (EE-LLM section 4.2). A token's rows walk through
// the stages in order. The stage whose exit fires, or the last one, chooses the next token and tells the
// first stage at once, which starts with it while the rows go on through the stages behind and fill their KV
// caches. So no entry is ever missing, and nothing is caught up.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ee/infer/generate.h"
#include "ee/infer/not_finite.h"
#include "ee/parallel/stage_link.h"

namespace ee::infer {

class PipelineEngine {
 public:
  // On every rank, with its stage's layers and all exits of the model (of other stages' only the spec is
  // read), and with equal options; no probe. All must outlive the engine. Tensor ranks of a stage work in
  // lockstep: they see the same logits, so they choose the same.
  PipelineEngine(const model::Backbone& backbone, std::span<const exits::ExitHead> exits,
                 const EngineOptions& options, const SamplingOptions& sampling, const parallel::Ranks& ranks);

  // On the first stage's ranks: appends tokens and returns the one behind them as soon as a stage has chosen
  // it. Later stages may still be at work on these tokens and some before them. NotFinite: as Engine::step(),
  // of whichever stage; then nothing but stop() may follow.
  GeneratedToken step(std::span<const int64_t> tokens);
  // Ends the others' serve(). Returns when they have taken all that was sent.
  void stop();

  // On the ranks of the other stages: takes part in every step() until stop().
  void serve();

  // Of a layer of this stage: complete for all tokens of the steps that it has taken part in.
  const model::LayerCache& cache(int64_t layer) const {
    return caches_.at(static_cast<size_t>(layer - backbone_.first_layer));
  }

 private:
  std::optional<GeneratedToken> climb(const at::Tensor& rows, bool chosen_before);
  GeneratedToken choose(const Prediction& prediction);
  void pass_on(const at::Tensor& rows, bool chosen);
  void tell_first(const std::vector<double>& answer) const;
  std::optional<GeneratedToken> ask(int64_t stage);

  const model::Backbone& backbone_;
  const parallel::RankGrid& grid_;
  size_t first_exit_ = 0;                   // of this stage, among all
  std::span<const exits::ExitHead> exits_;  // of this stage; none at threshold 1
  config::ExitPolicy policy_;
  std::vector<config::ExitRule> rules_;  // of all exits of the model
  Sampler sampler_;  // the same random numbers on all stages: each token takes one, whoever chooses it
  parallel::StageLink link_;
  int64_t length_ = 0;                          // tokens so far
  std::vector<model::LayerCache> caches_;       // of this stage's layers
  std::vector<model::LayerCache> exit_caches_;  // as Engine's, of this stage's exits
};

// generate() on a grid of ranks, every one of which calls it with the same prompt and options. Returns on the
// first stage's ranks, to which `tokenizer` and `listener` matter; the others return nothing when all is
// done. check_generate() has passed, and with several stages there is no probe.
std::optional<Generation> generate_on_ranks(const Model& model, const parallel::Ranks& ranks,
                                            const tokenizer::Tokenizer* tokenizer,
                                            std::span<const int64_t> prompt, const GenerateOptions& options,
                                            const GenerateListener& listener = {});

}  // namespace ee::infer
