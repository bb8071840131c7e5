#include "ee/infer/generate.h"

#include <algorithm>
#include <chrono>
#include <deque>

#include "ee/base/error.h"
#include "ee/infer/not_finite.h"
#include "ee/infer/stop_strings.h"

namespace ee::infer {

namespace {

using Clock = std::chrono::steady_clock;

// Token bytes to text: stop strings first, then whole characters, each piece with the token it belongs to.
class TextStream {
 public:
  TextStream(std::vector<std::string> stops, const GenerateListener& listener, std::string& text)
      : stops_(std::move(stops)), listener_(listener), text_(text) {}

  void push(size_t token, std::string_view bytes) {
    owners_.push_back({token, bytes.size()});
    release(stops_.push(bytes));
  }

  void finish() {
    release(stops_.finish());
    emit(last_owner_, characters_.finish());
  }

  bool stopped() const { return stops_.stopped(); }

 private:
  struct Owner {
    size_t token;
    size_t bytes;  // of it, not yet released
  };

  void release(std::string_view bytes) {
    while (!bytes.empty()) {
      Owner& owner = owners_.front();
      const size_t count = std::min(owner.bytes, bytes.size());
      last_owner_ = owner.token;
      emit(owner.token, characters_.push(bytes.substr(0, count)));
      bytes.remove_prefix(count);
      owner.bytes -= count;
      if (owner.bytes == 0) {
        owners_.pop_front();
      }
    }
  }

  void emit(size_t token, const std::string& characters) {
    text_ += characters;
    if (!characters.empty() && listener_.on_text) {
      listener_.on_text(token, characters);
    }
  }

  StopStrings stops_;
  tokenizer::Utf8Stream characters_;
  const GenerateListener& listener_;
  std::string& text_;
  std::deque<Owner> owners_;
  size_t last_owner_ = 0;
};

}  // namespace

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::eos:
      return "eos";
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::error:
      return "error";
  }
  EE_CHECK(false, "finish reason {}", static_cast<int>(reason));
}

double Generation::decode_tokens_per_second() const {
  double milliseconds = -prompt_milliseconds();
  for (const GeneratedToken& token : tokens) {
    milliseconds += token.milliseconds;
  }
  return tokens.size() > 1 ? 1000.0 * static_cast<double>(tokens.size() - 1) / milliseconds : 0.0;
}

void check_options(const GenerateOptions& options) {
  check_sampling(options.sampling);
  if (!(options.threshold >= 0.0 && options.threshold <= 1.0)) {
    throw base::UserError("threshold is {}, expected a probability in [0, 1]", options.threshold);
  }
  if (options.max_new_tokens < 1) {
    throw base::UserError("max-new-tokens is {}, expected at least 1", options.max_new_tokens);
  }
  if (options.context < 0) {
    throw base::UserError("context is {}, expected at least 1 (0: what the model allows)", options.context);
  }
  StopStrings checks_them(options.stop);
}

void check_generate(const config::ModelConfig& config, std::span<const int64_t> prompt,
                    const GenerateOptions& options) {
  const config::TextLimit limit = config::text_limit(config);
  const int64_t context = options.context == 0 ? limit.tokens : options.context;
  const auto length = static_cast<int64_t>(prompt.size());
  check_options(options);
  if (context > limit.tokens) {
    throw base::UserError("context is {}, expected 1 to {}, the model's {}", options.context, limit.tokens,
                          limit.reason);
  }
  if (prompt.empty()) {
    throw base::UserError("the prompt is empty: it has no tokens; give some text");
  }
  for (const int64_t token : prompt) {
    if (token < 0 || token >= config.vocab_size) {
      throw base::UserError("token {} of the prompt is outside the vocabulary of {} tokens", token,
                            config.vocab_size);
    }
  }
  if (length > context - options.max_new_tokens) {
    throw base::UserError(
        "the prompt has {} tokens and max-new-tokens is {}: together more than the context of {} ({}); "
        "shorten "
        "the prompt or lower --max-new-tokens",
        length, options.max_new_tokens, context, options.context == 0 ? limit.reason : "--context");
  }
}

std::vector<int64_t> end_tokens(const config::ModelConfig& config, const tokenizer::Tokenizer& tokenizer) {
  std::vector<int64_t> tokens = config.eos_tokens;
  if (tokenizer.eos()) {
    tokens.push_back(*tokenizer.eos());
  }
  return tokens;
}

Generation generate(const NextToken& next, const config::ModelConfig& config,
                    const tokenizer::Tokenizer& tokenizer, std::span<const int64_t> prompt,
                    const GenerateOptions& options, const GenerateListener& listener) {
  Generation generation;
  generation.prompt_tokens = static_cast<int64_t>(prompt.size());
  TextStream stream(options.stop, listener, generation.text);
  const std::vector<int64_t> ends = end_tokens(config, tokenizer);

  std::vector<int64_t> input(prompt.begin(), prompt.end());
  for (int64_t i = 0; i < options.max_new_tokens; ++i) {
    const auto start = Clock::now();
    GeneratedToken token;
    try {
      token = next(input);
    } catch (const NotFinite& error) {
      generation.finish = FinishReason::error;
      generation.error = error.what();
      break;
    }
    token.milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    input = {token.id};
    generation.tokens.push_back(std::move(token));
    if (listener.on_token) {
      listener.on_token(generation.tokens.back());
    }
    if (std::ranges::find(ends, input.front()) != ends.end()) {
      generation.finish = FinishReason::eos;
      break;
    }
    stream.push(generation.tokens.size() - 1, tokenizer.token_bytes(input.front()));
    if (stream.stopped()) {
      generation.finish = FinishReason::stop;
      break;
    }
  }
  stream.finish();
  return generation;
}

Generation generate(const Model& model, const tokenizer::Tokenizer& tokenizer,
                    std::span<const int64_t> prompt, const GenerateOptions& options,
                    const GenerateListener& listener) {
  check_generate(model.backbone.config, prompt, options);
  Engine engine(model.backbone, model.exits,
                {.capacity = static_cast<int64_t>(prompt.size()) + options.max_new_tokens,
                 .threshold = options.threshold,
                 .policy = options.policy,
                 .rules = options.rules,
                 .probe = options.probe});
  Sampler sampler(options.sampling);
  const auto next = [&](std::span<const int64_t> tokens) {
    const Prediction prediction = engine.step(tokens);
    GeneratedToken token{.id = sampler.sample(prediction.logits, prediction.token),
                         .exit = prediction.exit,
                         .confidence = prediction.confidence};
    for (const Prediction& probe : engine.probes()) {
      token.opinions.push_back({probe.exit, probe.token, probe.confidence});
    }
    return token;
  };
  return generate(next, model.backbone.config, tokenizer, prompt, options, listener);
}

}  // namespace ee::infer
