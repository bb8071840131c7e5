#include "ee/tokenizer/chat.h"

#include <algorithm>
#include <ctime>
#include <optional>

#include "chat_source.h"
#include "ee/base/error.h"

namespace ee::tokenizer {
namespace {

using base::UserError;

// BOS and EOS as the Llama-2 and Mistral tokenizers spell them; the only families whose prompts repeat them.
constexpr const char* kBos = "<s>";
constexpr const char* kEos = "</s>";

using Messages = std::vector<ChatMessage>;

[[noreturn]] void refuse_role(const std::string& role, const char* family) {
  throw UserError("the model's {} chat template has no place for a message with role '{}'", family, role);
}

void check_roles(const Messages& messages, const char* family) {
  for (const ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      refuse_role(message.role, family);
    }
  }
}

// Takes the system message off the front, if there is one.
std::optional<std::string> take_system(Messages& messages) {
  if (messages.empty() || messages.front().role != "system") return {};
  std::string system = messages.front().content;
  messages.erase(messages.begin());
  return system;
}

void check_alternation(const Messages& messages, const char* family) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != (i % 2 == 0 ? "user" : "assistant")) {
      throw UserError(
          "the model's {} chat template wants user and assistant to alternate, beginning with user; message "
          "{} has role '{}'",
          family, i + 1, messages[i].role);
    }
  }
}

std::string render_chatml(const ChatSource& source, Messages messages) {
  check_roles(messages, "ChatML");
  const std::string default_system = source.default_system("<|im_start|>system\n", "<|im_end|>");
  if (messages.front().role != "system" && !default_system.empty()) {
    messages.insert(messages.begin(), {.role = "system", .content = default_system});
  }
  const bool drops_thinking = source.has("</think>");
  std::string prompt;
  for (const ChatMessage& message : messages) {
    std::string content = source.content(message.content);
    if (drops_thinking && message.role == "assistant") content = after_thinking(content);
    prompt += fmt::format("<|im_start|>{}\n{}<|im_end|>\n", message.role, content);
  }
  return prompt + "<|im_start|>assistant\n";
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[64];
  return std::string(text, std::strftime(text, sizeof(text), "%d %b %Y", &local));
}

// Llama 3.1 and later begin every conversation with a system message that has two dates in it.
std::string llama3_dates(const ChatSource& source) {
  const std::string cutoff = source.between("Cutting Knowledge Date: ", "\n");
  const std::string date = source.has("strftime_now") ? today() : source.literal_after("set date_string = ");
  return fmt::format("Cutting Knowledge Date: {}\nToday Date: {}\n\n", cutoff, date);
}

std::string render_llama3(const ChatSource& source, Messages messages) {
  check_roles(messages, "Llama 3");
  const auto turn = [](const std::string& role, const std::string& content) {
    return fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>", role, content);
  };
  std::string prompt;
  if (source.has("Cutting Knowledge Date: ")) {
    const std::string system = source.content(take_system(messages).value_or(""));
    prompt = turn("system", llama3_dates(source) + system);
  }
  for (const ChatMessage& message : messages) prompt += turn(message.role, source.content(message.content));
  return prompt + "<|start_header_id|>assistant<|end_header_id|>\n\n";
}

std::string render_llama2(const ChatSource& source, Messages messages) {
  check_roles(messages, "Llama 2");
  std::optional<std::string> system = take_system(messages);
  // A template made with the default prompt switched on says `elif true`.
  const bool has_default = source.has("elif true == true") && !messages.empty() &&
                           messages.front().content.find("<<SYS>>") == std::string::npos;
  if (!system && has_default) system = source.literal_after("set system_message = '", 1);
  check_alternation(messages, "Llama 2");
  const bool repeats_bos = source.has("bos_token + '[INST] '");
  std::string prompt;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    std::string content = messages[i].content;
    if (i == 0 && system) content = fmt::format("<<SYS>>\n{}\n<</SYS>>\n\n{}", *system, content);
    content = source.content(content);
    if (messages[i].role == "assistant") {
      prompt += fmt::format(" {} {}", content, kEos);
    } else {
      if (i > 0 && repeats_bos) prompt += kBos;
      prompt += fmt::format("[INST] {} [/INST]", content);
    }
  }
  return prompt;
}

std::string render_mistral(const ChatSource& source, Messages messages) {
  check_roles(messages, "Mistral");
  const std::optional<std::string> system = take_system(messages);
  if (system && !source.has("system_message")) refuse_role("system", "Mistral");
  check_alternation(messages, "Mistral");
  // The versions differ in spaces, which are tokens of their own.
  const char* open = source.has_quoted(" [INST] ") ? " [INST] "
                     : source.has("[INST] ")       ? "[INST] "
                                                   : "[INST]";
  const char* close = source.has(" [/INST]") ? " [/INST]" : "[/INST]";
  const char* before_answer = source.has("' ' + message[") || source.has("\" \" + message[") ? " " : "";
  const char* after_answer = source.has("eos_token + ' '") ? " " : "";
  const std::size_t system_at =
      source.has("loop.first and system_message") || messages.empty() ? 0 : messages.size() - 1;
  std::string prompt;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == "assistant") {
      prompt +=
          fmt::format("{}{}{}{}", before_answer, source.content(messages[i].content), kEos, after_answer);
    } else {
      const std::string prefix = system && i == system_at ? *system + "\n\n" : "";
      prompt += fmt::format("{}{}{}{}", open, prefix, messages[i].content, close);
    }
  }
  return prompt;
}

std::string render_gemma(const ChatSource& source, Messages messages) {
  check_roles(messages, "Gemma");
  const std::optional<std::string> system = take_system(messages);
  if (system && !source.has("first_user_prefix")) refuse_role("system", "Gemma");
  check_alternation(messages, "Gemma");
  std::string prompt;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const char* role = messages[i].role == "assistant" ? "model" : "user";
    const std::string prefix = i == 0 && system ? *system + "\n\n" : "";
    prompt += fmt::format("<start_of_turn>{}\n{}{}<end_of_turn>\n", role, prefix,
                          source.content(messages[i].content));
  }
  return prompt + "<start_of_turn>model\n";
}

std::string render_phi3(const ChatSource& source, const Messages& messages) {
  check_roles(messages, "Phi 3");
  // The first templates drop system messages without a word.
  const bool knows_system = source.has("<|system|>") || source.has("'<|' + message[");
  const char* newline = source.has("<|end|>\n") || source.has("'<|end|>' + '\n'") ? "\n" : "";
  std::string prompt;
  for (const ChatMessage& message : messages) {
    if (message.role == "system" && !knows_system) refuse_role("system", "Phi 3");
    prompt +=
        fmt::format("<|{}|>{}{}<|end|>{}", message.role, newline, source.content(message.content), newline);
  }
  return prompt + "<|assistant|>" + newline;
}

}  // namespace

ChatFamily recognize_chat_template(std::string_view jinja_source) {
  const auto has = [&](std::string_view text) { return jinja_source.find(text) != std::string_view::npos; };
  if (has("<|im_start|>") && !has("<|im_sep|>")) return ChatFamily::chatml;
  if (has("<|start_header_id|>") && has("<|eot_id|>")) return ChatFamily::llama3;
  if (has("<start_of_turn>")) return ChatFamily::gemma;
  if (has("<|end|>") && has("<|assistant|>")) return ChatFamily::phi3;
  if (has("[INST]") && has("<<SYS>>")) return ChatFamily::llama2;
  if (has("[INST]") && !has("[SYSTEM_PROMPT]")) return ChatFamily::mistral;
  throw UserError(
      "the model's chat template is {}; known families: ChatML, Llama 2, Llama 3, Mistral, Gemma, Phi 3. "
      "Write the prompt out yourself instead of using chat",
      jinja_source.empty() ? "missing" : "of an unknown family");
}

namespace {

std::string render(ChatFamily family, const ChatSource& source, const std::vector<ChatMessage>& messages) {
  switch (family) {
    case ChatFamily::chatml:
      return render_chatml(source, messages);
    case ChatFamily::llama2:
      return render_llama2(source, messages);
    case ChatFamily::llama3:
      return render_llama3(source, messages);
    case ChatFamily::mistral:
      return render_mistral(source, messages);
    case ChatFamily::gemma:
      return render_gemma(source, messages);
    case ChatFamily::phi3:
      return render_phi3(source, messages);
  }
  EE_CHECK(false, "no such chat family: {}", static_cast<int>(family));
}

}  // namespace

std::string render_chat(std::string_view jinja_source, const std::vector<ChatMessage>& messages) {
  const ChatFamily family = recognize_chat_template(jinja_source);
  if (messages.empty()) throw UserError("a chat needs at least one message");
  return render(family, ChatSource(jinja_source), messages);
}

}  // namespace ee::tokenizer
