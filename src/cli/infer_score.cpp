#include <algorithm>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/eval/score.h"
#include "ee/format/file_kind.h"
#include "ee/format/records.h"
#include "ee/format/safetensors.h"
#include "ee/infer/not_finite.h"
#include "infer_commands.h"
#include "infer_model.h"
#include "processes.h"

namespace ee::cli {

namespace {

using base::UserError;
using Json = nlohmann::ordered_json;

struct ScoreArguments {
  ModelArguments model;
  std::string input, output, logits;
};

struct InputLine {
  std::vector<int64_t> tokens;
  std::string where;  // "file:line"
};

format::RecordReader open_records(const std::string& path) {
  format::UnpackedFile file(path);
  if (format::find_kind(file) != format::FileKind::records) {
    throw UserError("{} is text; expected records with \"tokens\" or \"text\", as .jsonl or .json", path);
  }
  return format::RecordReader(std::move(file));
}

// Checks each line. The tokenizer is loaded when the first line of text needs it.
class InputReader {
 public:
  explicit InputReader(const ScoreArguments& arguments)
      : arguments_(arguments),
        config_(config::read_model_config(arguments.model.folder)),
        records_(open_records(arguments.input)) {}

  std::optional<InputLine> next() {
    nlohmann::json line;
    if (!records_.next(line)) {
      return std::nullopt;
    }
    const std::string where = records_.where();
    const bool has_tokens = line.is_object() && line.contains("tokens");
    const bool has_text = line.is_object() && line.contains("text");
    if (has_tokens == has_text) {
      throw UserError("{}: expected an object with either \"tokens\" or \"text\"", where);
    }
    InputLine input{has_tokens ? read_tokens(line["tokens"], where) : encode(line["text"], where), where};
    eval::check_tokens(config_, input.tokens, where);
    return input;
  }

 private:
  static std::vector<int64_t> read_tokens(const nlohmann::json& tokens, const std::string& where) {
    if (!tokens.is_array() ||
        !std::ranges::all_of(tokens, [](const auto& token) { return token.is_number_integer(); })) {
      throw UserError("{}: \"tokens\" must be an array of whole numbers", where);
    }
    return tokens.get<std::vector<int64_t>>();
  }

  std::vector<int64_t> encode(const nlohmann::json& text, const std::string& where) {
    if (!text.is_string()) {
      throw UserError("{}: \"text\" must be a string", where);
    }
    if (!tokenizer_) {
      tokenizer_ = infer::load_tokenizer(arguments_.model.folder, config_);
    }
    return infer::encode_prompt(*tokenizer_, text.get<std::string>());
  }

  const ScoreArguments& arguments_;
  config::ModelConfig config_;
  format::RecordReader records_;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer_;
};

// {"tokens":[...],"layers":{"final":{"logprobs":[null,...],"argmax":[...]},"10":{...}}}
std::string output_line(const InputLine& line, const std::vector<eval::LayerScores>& scores) {
  Json layers;
  for (const eval::LayerScores& layer : scores) {
    Json logprobs = Json::array({nullptr});  // of the first token: nothing stands before it
    for (const double logprob : layer.logprobs) {
      logprobs.push_back(logprob);
    }
    layers[layer.name] = {{"logprobs", logprobs}, {"argmax", layer.argmax}};
  }
  return Json{{"tokens", line.tokens}, {"layers", layers}}.dump() + "\n";
}

// Raw output of every head: f32 tensors `final`, `10`, ... [tokens, vocab]. The file appears complete or not
// at all.
void write_logits(const std::filesystem::path& path, const infer::Model& model, const InputLine& line) {
  std::vector<format::TensorToWrite> tensors;
  eval::raw_logits(model, line.tokens, line.where, [&](const eval::NamedLogits& layer) {
    const auto produce = [logits = layer.logits](const auto& sink) {
      sink({static_cast<const std::byte*>(logits.const_data_ptr()), logits.nbytes()});
    };
    tensors.push_back({layer.name, format::DType::f32, layer.logits.sizes().vec(), produce});
  });
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  try {
    format::write_safetensors(temporary, tensors);
    std::filesystem::rename(temporary, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
}

// All of them, before the model is loaded: a mistake in the last one shows at once.
std::vector<InputLine> read_lines(const ScoreArguments& arguments) {
  InputReader reader(arguments);
  std::vector<InputLine> lines;
  while (std::optional<InputLine> input = reader.next()) {
    lines.push_back(*std::move(input));
    if (lines.size() > 1 && !arguments.logits.empty()) {
      throw UserError("{}: --logits is for a single input line, this is the second", lines.back().where);
    }
  }
  if (lines.empty()) {
    throw UserError("{} has no lines, expected at least one JSON object", arguments.input);
  }
  return lines;
}

// What had been scored until then is kept, under a name that does not look complete.
[[noreturn]] void give_up(const ScoreArguments& arguments, const std::string& output,
                          const infer::NotFinite& error) {
  if (output.empty()) {
    throw error;
  }
  const std::string part = arguments.output + ".part";
  base::write_file_atomically(part, output);
  throw UserError("{}. The lines before it are in {}", error.what(), part);
}

}  // namespace

int run_score(const std::vector<std::string>& args) {
  ScoreArguments arguments;
  CommandLine line(
      "ee-infer score --model DIR --input LINES.jsonl --output OUT.jsonl [--logits OUT.safetensors]",
      "Log probability of every token of each input line ({\"tokens\":[...]} or {\"text\":\"...\"}) and "
      "the most probable next token, for the final layer and every exit.");
  arguments.model.declare(line);
  line.value("input", "FILE", arguments.input, "JSON Lines, or a list of records, to score")
      .required("input");
  line.value("output", "FILE", arguments.output, "JSON Lines to write").required("output");
  line.value("logits", "FILE", arguments.logits,
             "raw f32 logits of a single input line, before division by an exit's temperature");
  if (!is_single_process("ee-infer score")) {
    return base::kExitUserError;
  }
  if (!line.parse(args)) {
    return 0;
  }
  base::check_output_file(arguments.output);
  if (!arguments.logits.empty()) {
    base::check_output_file(arguments.logits);
  }
  const std::vector<InputLine> lines = read_lines(arguments);
  const infer::Model model = arguments.model.load();
  std::string output;
  for (const InputLine& input : lines) {
    try {
      output += output_line(input, eval::score_tokens(model, input.tokens, input.where));
    } catch (const infer::NotFinite& error) {
      give_up(arguments, output, error);
    }
  }
  if (!arguments.logits.empty()) {
    write_logits(arguments.logits, model, lines.front());
  }
  base::write_file_atomically(arguments.output, output);
  return 0;
}

}  // namespace ee::cli
