#include "ee/infer/pipeline_engine.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "ee/base/error.h"
#include "ee/parallel/stage_plan.h"
#include "engine_parts.h"

namespace ee::infer {

namespace {

// Tokens that a stage may be ahead of the next one. Each that is chosen early lets the stages before it run
// ahead; at the end of the text what is under way is finished for nothing.
constexpr int64_t kInFlight = 8;

constexpr size_t kHeaderNumbers = 2;  // rows that follow (0: stop), whether the token behind them is chosen

// What a stage that was asked for a token tells the first one. Its first number says what the others are.
constexpr size_t kAnswerNumbers = 4;
constexpr double kNothing = 0, kToken = 1, kNotFinite = 2;

std::vector<double> answer_of(const GeneratedToken& token) {
  return {kToken, static_cast<double>(token.id), static_cast<double>(token.exit), token.confidence};
}

std::vector<double> answer_of(const NotFinite& error) {
  return {kNotFinite, static_cast<double>(error.part()), static_cast<double>(error.layer()),
          static_cast<double>(error.position())};
}

}  // namespace

PipelineEngine::PipelineEngine(const model::Backbone& backbone, std::span<const exits::ExitHead> exits,
                               const EngineOptions& options, const SamplingOptions& sampling,
                               const parallel::Ranks& ranks)
    : backbone_(backbone),
      grid_(ranks.grid),
      policy_(options.policy),
      rules_(exit_rules(options, exits)),
      sampler_(sampling),
      link_(ranks, kInFlight),
      caches_(layer_caches(backbone, options.capacity)) {
  EE_CHECK(!options.probe, "a pipeline stage knows its own exits' opinions only");
  const auto mine = [&](const exits::ExitHead& exit) {
    return parallel::is_on_stage(exit.spec, backbone.first_layer, backbone.last_layer());
  };
  const auto begin = std::ranges::find_if(exits, mine);
  first_exit_ = static_cast<size_t>(begin - exits.begin());
  if (may_leave(rules_)) {
    exits_ = {begin, std::find_if_not(begin, exits.end(), mine)};
  }
  exit_caches_ = exit_caches(backbone, exits_, options.capacity);
}

GeneratedToken PipelineEngine::step(std::span<const int64_t> tokens) {
  EE_CHECK(grid_.is_first_stage() && !tokens.empty(), "{} tokens on stage {}", tokens.size(),
           grid_.position().pipeline);
  const c10::InferenceMode no_autograd;
  std::optional<GeneratedToken> chosen = climb(backbone_.embed(as_ids(backbone_, tokens)), false);
  for (int64_t stage = 1; !chosen && stage < grid_.sizes().pipeline; ++stage) {
    chosen = ask(stage);
  }
  return chosen.value();
}

void PipelineEngine::stop() {
  if (!grid_.is_last_stage()) {
    link_.send_numbers(std::vector<double>(kHeaderNumbers));
  }
  link_.finish();
}

void PipelineEngine::serve() {
  const c10::InferenceMode no_autograd;
  for (;;) {
    const std::vector<double> header = link_.receive_numbers(kHeaderNumbers);
    const auto count = static_cast<int64_t>(header[0]);
    if (count == 0) {
      return stop();
    }
    const at::Tensor rows = link_.receive({1, count, backbone_.config.hidden_size}, backbone_.options());
    try {
      climb(rows, header[1] != 0);
    } catch (const NotFinite& error) {
      tell_first(answer_of(error));  // which ends it: all that comes now is its stop()
    }
  }
}

// Rows [1, seq, hidden] through this stage and on to the next. Unless an earlier stage has chosen the token
// behind them, the first exit that fires here does, or at last the final layer. Returns what this stage
// chose.
std::optional<GeneratedToken> PipelineEngine::climb(const at::Tensor& rows, bool chosen_before) {
  std::optional<GeneratedToken> chosen;
  length_ += rows.size(1);
  model::LayerTrace trace;
  trace.output = rows;
  size_t exit = 0;
  for (int64_t depth = backbone_.first_layer - 1; depth <= backbone_.last_layer(); ++depth) {
    if (depth >= backbone_.first_layer) {
      trace =
          model::decoder_layer(backbone_.config, backbone_.layer(depth), trace.output, backbone_.rope,
                               &caches_[static_cast<size_t>(depth - backbone_.first_layer)], backbone_.ranks);
    }
    for (; exit < exits_.size() && exits_[exit].spec.depth() == depth; ++exit) {
      const config::ExitRule& rule = rules_[first_exit_ + exit];
      const auto said =
          ask_exit(backbone_, exits_[exit], static_cast<int64_t>(first_exit_ + exit), trace, trace.output,
                   exit_caches_[exit], !chosen_before && !chosen && rule.threshold < 1.0,
                   {.policy = policy_, .rule = rule, .position = length_ - 1});
      if (said && leaves(*said, rule.threshold)) {
        chosen = choose(*said);
      }
    }
  }
  if (grid_.is_last_stage() && !chosen_before && !chosen) {
    chosen = choose(ask_final_layer(backbone_, trace.output, length_ - 1));
  }
  pass_on(trace.output, chosen_before || chosen);
  if (!chosen_before && !chosen) {
    tell_first(std::vector<double>(kAnswerNumbers, kNothing));
  }
  if (!chosen) {
    sampler_.skip();
  }
  return chosen;
}

GeneratedToken PipelineEngine::choose(const Prediction& prediction) {
  const GeneratedToken token{.id = sampler_.sample(prediction.logits, prediction.token),
                             .exit = prediction.exit,
                             .confidence = prediction.confidence};
  tell_first(answer_of(token));
  return token;
}

void PipelineEngine::pass_on(const at::Tensor& rows, bool chosen) {
  if (grid_.is_last_stage()) {
    return;
  }
  link_.send_numbers({static_cast<double>(rows.size(1)), chosen ? 1.0 : 0.0});
  link_.send(rows);
}

// Each stage that is asked for the token answers, in the order of the stages: the first one does not know
// beforehand who will have it.
void PipelineEngine::tell_first(const std::vector<double>& answer) const {
  if (!grid_.is_first_stage()) {
    link_.send_numbers_to_first(answer);
  }
}

std::optional<GeneratedToken> PipelineEngine::ask(int64_t stage) {
  const std::vector<double> answer = link_.receive_numbers_from(stage, kAnswerNumbers);
  if (answer[0] == kNothing) {
    return std::nullopt;
  }
  if (answer[0] == kNotFinite) {
    throw NotFinite(static_cast<NotFinite::Part>(answer[1]), static_cast<int64_t>(answer[2]),
                    static_cast<int64_t>(answer[3]));
  }
  return GeneratedToken{.id = static_cast<int64_t>(answer[1]),
                        .exit = static_cast<int64_t>(answer[2]),
                        .confidence = answer[3]};
}

std::optional<Generation> generate_on_ranks(const Model& model, const parallel::Ranks& ranks,
                                            const tokenizer::Tokenizer* tokenizer,
                                            std::span<const int64_t> prompt, const GenerateOptions& options,
                                            const GenerateListener& listener) {
  if (ranks.grid.sizes().pipeline == 1) {
    return generate(model, *tokenizer, prompt, options, listener);
  }
  PipelineEngine engine(model.backbone, model.exits,
                        {.capacity = static_cast<int64_t>(prompt.size()) + options.max_new_tokens,
                         .threshold = options.threshold,
                         .policy = options.policy,
                         .rules = options.rules,
                         .probe = options.probe},
                        options.sampling, ranks);
  if (!ranks.grid.is_first_stage()) {
    engine.serve();
    return std::nullopt;
  }
  const auto next = [&](std::span<const int64_t> tokens) { return engine.step(tokens); };
  Generation generation = generate(next, model.backbone.config, *tokenizer, prompt, options, listener);
  engine.stop();
  return generation;
}

}  // namespace ee::infer
