#include "infer_report.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "ee/tokenizer/tokenizer.h"

namespace ee::cli {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kColours = {39, 42, 214, 170, 226, 51, 203, 141};  // of the 256-colour palette
constexpr double kBarWidth = 40.0;

// Tokens per exit, in order, and at last those of the final layer.
std::vector<int64_t> count_exits(const infer::Model& model, const infer::Generation& generation) {
  std::vector<int64_t> counts(model.exits.size() + 1);
  for (const infer::GeneratedToken& token : generation.tokens) {
    ++(token.exit == infer::kFinalLayer ? counts.back() : counts[static_cast<size_t>(token.exit)]);
  }
  return counts;
}

int64_t exit_of_row(const infer::Model& model, size_t row) {
  return row < model.exits.size() ? static_cast<int64_t>(row) : infer::kFinalLayer;
}

double average_layers(const infer::Model& model, const infer::Generation& generation) {
  double layers = 0.0;
  for (const infer::GeneratedToken& token : generation.tokens) {
    layers += static_cast<double>(model.exit_depth(token.exit));
  }
  return layers / static_cast<double>(std::max<size_t>(1, generation.tokens.size()));
}

// A layer number, or "final".
Json exit_json(const infer::Model& model, int64_t exit) {
  return exit == infer::kFinalLayer ? Json("final") : Json(model.exits[static_cast<size_t>(exit)].spec.layer);
}

// A token as text for people: valid UTF-8, special tokens written out.
std::string readable(const tokenizer::Tokenizer& tokenizer, int64_t token) {
  tokenizer::Utf8Stream characters;
  const std::string text = characters.push(tokenizer.token_bytes(token, /*keep_special=*/true));
  return text + characters.finish();
}

std::string quoted(const tokenizer::Tokenizer& tokenizer, int64_t token) {
  return Json(readable(tokenizer, token)).dump();  // escapes line ends and control characters
}

Json token_json(const infer::Model& model, const tokenizer::Tokenizer& tokenizer,
                const infer::GeneratedToken& token) {
  Json json = {{"id", token.id},
               {"text", readable(tokenizer, token.id)},
               {"exit", exit_json(model, token.exit)},
               {"confidence", token.confidence},
               {"ms", token.milliseconds}};
  for (const infer::ExitOpinion& opinion : token.opinions) {
    json["exits"].push_back({{"exit", exit_json(model, opinion.exit)},
                             {"id", opinion.token},
                             {"text", readable(tokenizer, opinion.token)},
                             {"confidence", opinion.confidence}});
  }
  return json;
}

}  // namespace

std::string ExitMarks::mark(int64_t exit, std::string_view text) const {
  if (exit == infer::kFinalLayer) {
    return std::string(text);
  }
  if (!colours_) {
    return fmt::format("[{}: {}]", model_.exit_name(exit), text);
  }
  return fmt::format("\033[38;5;{}m{}\033[0m", kColours[static_cast<size_t>(exit) % kColours.size()], text);
}

std::string ExitMarks::legend() const {
  std::string legend = "made by exit:";
  for (size_t i = 0; i < model_.exits.size(); ++i) {
    const auto exit = static_cast<int64_t>(i);
    const std::string sample = colours_ ? fmt::format("■ {}", model_.exit_name(exit)) : "text";
    legend += fmt::format(" {}", mark(exit, sample));
  }
  return legend + (colours_ ? " ■ final layer\n" : ", unmarked by the final layer\n");
}

std::string exit_histogram(const infer::Model& model, const infer::Generation& generation) {
  const std::vector<int64_t> counts = count_exits(model, generation);
  const auto total = static_cast<double>(generation.tokens.size());
  std::string text;
  for (size_t row = 0; row < counts.size(); ++row) {
    const double share = static_cast<double>(counts[row]) / total;
    text += fmt::format("{:>6} {:>6} {:>6.1f}% ", model.exit_name(exit_of_row(model, row)), counts[row],
                        100.0 * share);
    for (double drawn = 0.5; drawn < share * kBarWidth; drawn += 1.0) {
      text += "█";
    }
    text += "\n";
  }
  text += fmt::format("{} tokens, {:.1f} of {} layers a token on average, {:.1f} tokens/s",
                      generation.tokens.size(), average_layers(model, generation),
                      model.backbone.config.layers, generation.decode_tokens_per_second());
  return text + fmt::format(" (prompt: {} tokens in {:.0f} ms)\n", generation.prompt_tokens,
                            generation.prompt_milliseconds());
}

std::string probe_line(const infer::Model& model, const tokenizer::Tokenizer& tokenizer, size_t position,
                       const infer::GeneratedToken& token) {
  std::string line = fmt::format("{:>5}  {:<14} by {:<5}", position, quoted(tokenizer, token.id),
                                 model.exit_name(token.exit));
  for (const infer::ExitOpinion& opinion : token.opinions) {
    line += fmt::format(" | {}: {} {:.3f}", model.exit_name(opinion.exit), quoted(tokenizer, opinion.token),
                        opinion.confidence);
  }
  return line + "\n";
}

std::string generation_json(const infer::Model& model, const tokenizer::Tokenizer& tokenizer,
                            const infer::Generation& generation) {
  Json tokens = Json::array();
  double milliseconds = 0.0;
  for (const infer::GeneratedToken& token : generation.tokens) {
    tokens.push_back(token_json(model, tokenizer, token));
    milliseconds += token.milliseconds;
  }
  Json per_exit;
  const std::vector<int64_t> counts = count_exits(model, generation);
  for (size_t row = 0; row < counts.size(); ++row) {
    per_exit[model.exit_name(exit_of_row(model, row))] = counts[row];
  }
  const Json totals = {{"tokens", generation.tokens.size()},
                       {"exits", per_exit},
                       {"average_layers", average_layers(model, generation)},
                       {"layers", model.backbone.config.layers},
                       {"prompt_ms", generation.prompt_milliseconds()},
                       {"decode_ms", milliseconds - generation.prompt_milliseconds()},
                       {"tokens_per_second", generation.decode_tokens_per_second()}};
  Json json = {{"text", generation.text},
               {"finish", infer::to_string(generation.finish)},
               {"prompt_tokens", generation.prompt_tokens},
               {"tokens", tokens},
               {"totals", totals}};
  if (!generation.error.empty()) {
    json["error"] = generation.error;
  }
  return json.dump();
}

}  // namespace ee::cli
