#include <unistd.h>

#include <iostream>
#include <iterator>

#include "ee/base/error.h"
#include "ee/data/documents.h"
#include "ee/tokenizer/chat.h"
#include "infer_generate.h"

namespace ee::cli {

using base::UserError;

namespace {

std::string read_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

std::string as_conversation(const GenerateArguments& arguments, const std::string& text,
                            const tokenizer::Tokenizer& tokenizer) {
  const tokenizer::ChatTemplate& chat = tokenizer.chat_template();
  if (chat.source.empty() && chat.why_none.empty()) {
    throw UserError(
        "{} has no chat template (chat_template.jinja or tokenizer_config.json); leave --chat out",
        arguments.model.folder);
  }
  std::vector<tokenizer::ChatMessage> messages;
  if (arguments.system) {
    messages.push_back({"system", *arguments.system});
  }
  messages.push_back({"user", text});
  return tokenizer::render_chat(chat, messages);
}

}  // namespace

void check_input(const GenerateArguments& arguments) {
  if (!arguments.prompt && !arguments.prompt_file && ::isatty(STDIN_FILENO)) {
    throw UserError("no prompt: give --prompt TEXT or --prompt-file FILE, or write it to standard input");
  }
}

std::string read_prompt(const GenerateArguments& arguments) {
  check_input(arguments);
  if (arguments.prompt) {
    return data::as_text(*arguments.prompt, "the prompt");
  }
  std::string text = arguments.prompt_file ? data::read_text(*arguments.prompt_file)
                                           : data::as_text(read_input(), "the prompt");
  // Whoever writes a file ends its last line; that is no part of what is asked.
  if (text.ends_with('\n')) {
    text.pop_back();
    if (text.ends_with('\r')) {
      text.pop_back();
    }
  }
  return text;
}

std::vector<int64_t> encode_prompt(const GenerateArguments& arguments, const std::string& text,
                                   const tokenizer::Tokenizer& tokenizer) {
  // A template writes the BOS itself where the model wants one.
  return arguments.chat ? tokenizer.encode(as_conversation(arguments, text, tokenizer))
                        : infer::encode_prompt(tokenizer, text);
}

std::vector<int64_t> checked_prompt(const GenerateArguments& arguments, const std::string& text,
                                    const config::ModelConfig& config,
                                    const tokenizer::Tokenizer& tokenizer) {
  std::vector<int64_t> prompt = encode_prompt(arguments, text, tokenizer);
  infer::check_generate(config, prompt, arguments.generate);
  return prompt;
}

}  // namespace ee::cli
