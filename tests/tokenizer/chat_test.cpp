#include "ee/tokenizer/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "chat_source.h"
#include "ee/base/error.h"
#include "tokenizer/golden_helper.h"

namespace ee::tokenizer {
namespace {

nlohmann::json read_chat_golden() {
  std::ifstream file(golden_folder("chat.golden.json"));
  return nlohmann::json::parse(file);
}

std::string with_today(std::string text) {
  const std::time_t now = std::time(nullptr);
  char today[64];
  std::strftime(today, sizeof(today), "%d %b %Y", std::localtime(&now));
  const std::string placeholder = "@DATE@";
  if (const auto at = text.find(placeholder); at != std::string::npos)
    text.replace(at, placeholder.size(), today);
  return text;
}

}  // namespace

TEST(ChatTemplate, RendersAsJinjaDoes) {
  const auto golden = read_chat_golden();
  ASSERT_GT(golden.at("cases").size(), 100u);
  for (const auto& row : golden.at("cases")) {
    const std::string name = row[0], source = golden.at("templates").at(name);
    std::vector<ChatMessage> messages;
    for (const auto& message : row[1]) messages.push_back({message.at("role"), message.at("content")});
    SCOPED_TRACE(name + " " + row[1].dump());
    if (row[2].is_null()) {
      EXPECT_THROW(render_chat(source, messages), base::UserError);
    } else {
      EXPECT_EQ(render_chat(source, messages), with_today(row[2]));
    }
  }
}

TEST(ChatTemplate, FamiliesAreRecognized) {
  const auto templates = read_chat_golden().at("templates");
  const std::pair<const char*, ChatFamily> families[] = {
      {"smollm2", ChatFamily::chatml},  {"qwen2.5", ChatFamily::chatml},
      {"llama2", ChatFamily::llama2},   {"llama3", ChatFamily::llama3},
      {"llama3.2", ChatFamily::llama3}, {"mistral-v0.1", ChatFamily::mistral},
      {"gemma3", ChatFamily::gemma},    {"mistral-nemo", ChatFamily::mistral},
      {"phi3-mini", ChatFamily::phi3}};
  for (const auto& [name, family] : families) {
    EXPECT_EQ(recognize_chat_template(templates.at(name).get<std::string>()), family) << name;
  }
}

TEST(ChatTemplate, UnknownIsAnErrorNotAGuess) {
  const std::vector<ChatMessage> hi = {{"user", "hi"}};
  EXPECT_THROW(render_chat("", hi), base::UserError);
  EXPECT_THROW(render_chat("{{ 'Human: ' + messages[0]['content'] }}", hi), base::UserError);
  EXPECT_THROW(render_chat("<|im_start|>user<|im_sep|>", hi), base::UserError);  // Phi 4
  EXPECT_THROW(render_chat("[SYSTEM_PROMPT] [INST]", hi), base::UserError);      // Mistral's later versions
}

TEST(ChatTemplate, MessagesWithoutAPlaceAreErrors) {
  const std::string chatml = read_chat_golden().at("templates").at("chatml");
  EXPECT_THROW(render_chat(chatml, {}), base::UserError);
  EXPECT_THROW(render_chat(chatml, {{"tool", "42"}}), base::UserError);
  // Microsoft's first Phi-3 template would drop the system message silently.
  const std::string old_phi3 =
      "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}";
  EXPECT_THROW(render_chat(old_phi3, {{"system", "s"}, {"user", "u"}}), base::UserError);
  EXPECT_EQ(render_chat(old_phi3, {{"user", "u"}}), "<|user|>\nu<|end|>\n<|assistant|>\n");
}

TEST(ChatTemplate, ThinkingOfEarlierAnswersIsLeftOutIfTheTemplateDoesSo) {
  const std::string qwen3 =
      "{{ '<|im_start|>' }}{% set content = content.split('</think>')[-1].lstrip('\\n') %}";
  EXPECT_EQ(
      render_chat(qwen3, {{"user", "u"}, {"assistant", "<think>\nhm\n</think>\n\na"}, {"user", "v"}}),
      "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nv<|im_end|>\n"
      "<|im_start|>assistant\n");
}

TEST(Strip, RemovesWhatPythonCallsSpace) {
  EXPECT_EQ(strip("\u00a0\u3000 a b\t\u2028\x1c"), "a b");
  EXPECT_EQ(strip("\u200b"), "\u200b");
  EXPECT_EQ(strip(" \n"), "");
  EXPECT_EQ(strip(""), "");
}

}  // namespace ee::tokenizer
