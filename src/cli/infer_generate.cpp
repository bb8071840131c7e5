#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/data/documents.h"
#include "ee/infer/generate.h"
#include "ee/tokenizer/chat.h"
#include "infer_commands.h"
#include "infer_model.h"
#include "infer_report.h"

namespace ee::cli {

namespace {

using base::UserError;

struct Arguments {
  ModelArguments model;
  std::optional<std::string> prompt, prompt_file, system;
  bool chat = false, show_exits = false, json = false, probe = false;
  int64_t seed = 0;
  infer::GenerateOptions generate;

  bool parse(const std::vector<std::string>& args);
};

bool Arguments::parse(const std::vector<std::string>& args) {
  CommandLine line(
      "ee-infer --model DIR [--prompt TEXT] [options]",
      "Generates text. A token is made by the first exit whose largest probability reaches the "
      "threshold, otherwise by the final layer. Without --prompt and --prompt-file, the prompt is read "
      "from standard input.");
  model.declare(line);
  line.value("prompt", "TEXT", prompt, "what to continue");
  line.value("prompt-file", "FILE", prompt_file,
             "read the prompt from a file (one line end at its end is dropped)");
  line.flag("chat", chat, "the prompt is a user's message: put it into the model's chat template");
  line.value("system", "TEXT", system, "with --chat: the system message");
  line.value("threshold", "P", generate.threshold,
             "confidence in [0, 1] from which an exit makes the token; 1: never");
  line.value("max-new-tokens", "N", generate.max_new_tokens, "the longest answer");
  line.value("context", "N", generate.context, "most tokens of prompt and answer; 0: what the model allows");
  line.value("temperature", "T", generate.sampling.temperature, "of sampling; 0: the most probable token");
  line.value("top-k", "K", generate.sampling.top_k, "sample from the K most probable tokens; 0: all");
  line.value("top-p", "P", generate.sampling.top_p,
             "sample from the fewest tokens that together have this probability");
  line.value("min-p", "P", generate.sampling.min_p,
             "no token below this fraction of the largest probability");
  line.value("seed", "N", seed, "of sampling");
  line.values("stop", "TEXT", generate.stop, "end in front of this text; may be repeated");
  line.flag("show-exits", show_exits,
            "colour each token by the exit that made it; then a legend and a histogram");
  line.flag("json", json, "print one JSON object instead of text");
  line.flag("probe", probe, "print every exit's token and confidence at each position");
  if (!line.parse(args)) {
    return false;
  }
  generate.sampling.seed = static_cast<uint64_t>(seed);
  generate.probe = probe;
  if (prompt && prompt_file) {
    throw UserError("--prompt and --prompt-file are both given, expected one of them");
  }
  if (system && !chat) {
    throw UserError("--system is for conversations: add --chat, or put the text into the prompt");
  }
  if (json && show_exits) {
    throw UserError(
        "--json and --show-exits are both given, expected one of them; --json names each token's exit");
  }
  infer::check_options(generate);
  return true;
}

std::string read_input() {
  if (::isatty(STDIN_FILENO)) {
    throw UserError("no prompt: give --prompt TEXT or --prompt-file FILE, or write it to standard input");
  }
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

std::string read_prompt(const Arguments& arguments) {
  std::string text;
  if (arguments.prompt) {
    text = *arguments.prompt;
  } else {
    text = arguments.prompt_file ? base::read_text_file(*arguments.prompt_file) : read_input();
    if (text.ends_with('\n')) {
      text.pop_back();
    }
  }
  if (const size_t invalid = data::find_invalid_utf8(text); invalid < text.size()) {
    throw UserError("the prompt is not UTF-8: byte {} is 0x{:02x}", invalid,
                    static_cast<unsigned char>(text[invalid]));
  }
  return text;
}

std::string as_conversation(const Arguments& arguments, const std::string& text,
                            const tokenizer::Tokenizer& tokenizer) {
  if (tokenizer.chat_template().empty()) {
    throw UserError(
        "{} has no chat template (chat_template.jinja or tokenizer_config.json); leave --chat out",
        arguments.model.folder);
  }
  std::vector<tokenizer::ChatMessage> messages;
  if (arguments.system) {
    messages.push_back({"system", *arguments.system});
  }
  messages.push_back({"user", text});
  return tokenizer::render_chat(tokenizer.chat_template(), messages);
}

void print(std::string_view text) {
  fmt::print("{}", text);
  std::fflush(stdout);  // a token at a time, also into a pipe
}

void generate_for_people(const Arguments& arguments, const infer::Model& model,
                         const tokenizer::Tokenizer& tokenizer, std::span<const int64_t> prompt) {
  const ExitMarks marks(model, std::getenv("NO_COLOR") == nullptr);
  std::vector<int64_t> exits;  // of each token
  infer::GenerateListener listener;
  listener.on_token = [&](const infer::GeneratedToken& token) {
    if (arguments.probe) {
      print(probe_line(model, tokenizer, exits.size(), token));
    }
    exits.push_back(token.exit);
  };
  listener.on_text = [&](size_t token, std::string_view text) {
    if (!arguments.probe) {
      print(arguments.show_exits ? marks.mark(exits.at(token), text) : text);
    }
  };
  const infer::Generation generation =
      infer::generate(model, tokenizer, prompt, arguments.generate, listener);
  print(arguments.probe ? fmt::format("\n{}\n", generation.text) : "\n");
  if (arguments.show_exits) {
    print(fmt::format("\n{}{}", marks.legend(), exit_histogram(model, generation)));
  }
}

}  // namespace

int run_generate(const std::vector<std::string>& args) {
  Arguments arguments;
  if (!arguments.parse(args)) {
    return 0;
  }
  std::string text = read_prompt(arguments);
  const infer::Model model = arguments.model.load();
  const auto tokenizer = arguments.model.load_tokenizer(model);
  if (model.exits.empty() && arguments.generate.threshold < 1.0) {
    fmt::print(stderr, "note: {} has no exits, --threshold changes nothing; ee-convert attach adds some\n",
               arguments.model.folder);
  }
  if (arguments.chat) {
    text = as_conversation(arguments, text, *tokenizer);
  }
  const std::vector<int64_t> prompt = infer::encode_prompt(*tokenizer, text);
  if (arguments.json) {
    const auto generation = infer::generate(model, *tokenizer, prompt, arguments.generate);
    print(fmt::format("{}\n", generation_json(model, *tokenizer, generation)));
  } else {
    generate_for_people(arguments, model, *tokenizer, prompt);
  }
  return 0;
}

}  // namespace ee::cli
