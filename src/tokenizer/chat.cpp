#include "ee/tokenizer/chat.h"

#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "jinja_template.h"

namespace ee::tokenizer {

using base::UserError;
using nlohmann::ordered_json;

std::string render_chat(const ChatTemplate& chat_template, const std::vector<ChatMessage>& messages,
                        std::time_t now) {
  if (chat_template.source.empty()) {
    throw UserError(
        "{}. Write the prompt out yourself instead of using chat",
        chat_template.why_none.empty() ? "the model has no chat template" : chat_template.why_none);
  }
  if (messages.empty()) throw UserError("a chat needs at least one message");
  ordered_json variables = chat_template.variables;
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = true;
  ordered_json& list = variables["messages"] = ordered_json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  return render_jinja(chat_template.source, variables, now);
}

}  // namespace ee::tokenizer
