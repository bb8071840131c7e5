// Conversations as prompts: the model's own chat template, rendered as transformers' apply_chat_template
// does.
#pragma once

#include <ctime>
#include <map>
#include <string>
#include <vector>

namespace ee::tokenizer {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"; which of them there may be, the template decides
  std::string content;
};

// A model's chat template as its folder has it.
struct ChatTemplate {
  std::string source;    // Jinja, "" if there is none
  std::string why_none;  // "" or, where others than the default are there, a sentence that says so
  std::map<std::string, std::string>
      variables;  // what it sees beside the messages: bos_token, eos_token, ...
};

// The prompt up to where the assistant's answer begins (add_generation_prompt), without tools and documents,
// special tokens written out. A BOS is in it if the template writes one: encode it as it is and put none in
// front. `now` is the time for templates that write the date. UserError: no template, no message, what the
// template itself says against the messages, or where it fails.
std::string render_chat(const ChatTemplate& chat_template, const std::vector<ChatMessage>& messages,
                        std::time_t now = std::time(nullptr));

}  // namespace ee::tokenizer
