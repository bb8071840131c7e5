// Conversations as prompts. The template families are recognized from the Jinja source (ChatML, Llama 2,
// Llama 3, Mistral, Gemma, Phi 3); an unknown one is a UserError, never a guess.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ee::tokenizer {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

enum class ChatFamily { chatml, llama2, llama3, mistral, gemma, phi3 };

ChatFamily recognize_chat_template(std::string_view jinja_source);

// The prompt up to where the assistant's answer begins, special tokens written out (without the BOS that
// Tokenizer::adds_bos() adds). A default system message inside the template (as SmolLM2's and Qwen2's) is
// honoured.
std::string render_chat(std::string_view jinja_source, const std::vector<ChatMessage>& messages);

}  // namespace ee::tokenizer
