#include "ee/tokenizer/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/format/gguf.h"
#include "ee/tokenizer/gguf_tokenizer.h"
#include "support/smollm2.h"
#include "tokenizer/golden_helper.h"
#include "tokenizer/temporary_folder.h"

namespace ee::tokenizer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json read_json(const char* name) {
  std::ifstream file(golden_folder(name));
  return json::parse(file);
}

const json& golden() {
  static const json all = read_json("chat.golden.json");
  return all;
}

// The golden files' clock: 4 July 2026, 15:06:07, wherever this is.
std::time_t golden_time() {
  std::tm local{};
  local.tm_year = 126, local.tm_mon = 6, local.tm_mday = 4;
  local.tm_hour = 15, local.tm_min = 6, local.tm_sec = 7;
  local.tm_isdst = -1;
  return std::mktime(&local);
}

std::string fnv(std::string_view text) {
  uint64_t value = 0xCBF29CE484222325u;
  for (const char byte : text) value = (value ^ static_cast<uint8_t>(byte)) * 0x100000001B3u;
  return fmt::format("{:016x}", value);
}

std::vector<ChatMessage> messages_of(const json& conversation) {
  std::vector<ChatMessage> messages;
  for (const auto& turn : conversation) messages.push_back({turn[0], turn[1]});
  return messages;
}

std::string source_of(const std::string& name) {
  if (!name.ends_with(".jinja")) return golden().at("templates").at(name);
  const std::filesystem::path path = std::filesystem::path(EE_LLAMA_DIR) / "models/templates" / name;
  return base::read_text_file(path);  // scripts/setup.sh --test puts it there
}

// Expects the text's hash, or the error: the template's own words, or any failure where jinja2 has one.
void expect_golden(const json& expected, const std::function<std::string()>& render, int& equal) {
  std::string text;
  try {
    text = render();
  } catch (const base::UserError& error) {
    if (expected.is_string()) {
      ADD_FAILURE() << error.what();
    } else if (expected.contains("says")) {
      EXPECT_EQ(error.what(), "the model's chat template says: " + expected.at("says").get<std::string>());
    } else {
      EXPECT_THAT(error.what(), HasSubstr("the model's chat template fails in line "));
    }
    equal += !expected.is_string();
    return;
  }
  if (!expected.is_string()) {
    ADD_FAILURE() << "expected " << expected << ", rendered " << text;
  } else if (fnv(text) == expected) {
    ++equal;
  } else {
    ADD_FAILURE() << "another text than transformers': " << text;
  }
}

std::string joined(const std::vector<int64_t>& ids) { return fmt::format("{}", fmt::join(ids, ",")); }

ChatTemplate with_source(ChatTemplate chat, const std::string& source) {
  chat.source = source;
  return chat;
}

const std::map<std::string, std::string> kRoles = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};

ChatTemplate chat_of(const std::string& source) {
  return {.source = source, .why_none = "", .variables = kRoles};
}

}  // namespace

TEST(ChatTemplate, EveryCollectedTemplateRendersAsInTransformers) {
  int equal = 0, all = 0;
  for (const auto& [name, expected] : golden().at("texts").items()) {
    const ChatTemplate chat = chat_of(source_of(name));
    for (std::size_t i = 0; i < expected.size(); ++i, ++all) {
      SCOPED_TRACE(fmt::format("{}, conversation {}", name, i));
      const auto messages = messages_of(golden().at("conversations")[i]);
      expect_golden(
          expected[i], [&] { return render_chat(chat, messages, golden_time()); }, equal);
    }
  }
  EXPECT_GE(all, 90 * 12);
  EXPECT_EQ(equal, all) << "templates and conversations that render equal";
  RecordProperty("equal", equal);
}

TEST(ChatTemplate, IdsEqualTransformersWithOneBosAtMost) {
  for (const auto& [name, templates] : golden().at("ids").items()) {
    const TemporaryFolder folder;
    std::filesystem::path where = golden_folder(name);
    if (name == "smollm2") {
      write_hf_tokenizer(format::GgufFile(test::smollm2_gguf()), folder.path());
      where = folder.path();
    }
    const auto tokenizer = Tokenizer::load(where);
    int equal = 0, all = 0;
    for (const auto& [template_name, expected] : templates.items()) {
      const ChatTemplate chat = with_source(tokenizer->chat_template(), source_of(template_name));
      for (std::size_t i = 0; i < expected.size(); ++i, ++all) {
        SCOPED_TRACE(fmt::format("{} with {}, conversation {}", name, template_name, i));
        const auto messages = messages_of(golden().at("conversations")[i]);
        expect_golden(
            expected[i],
            [&] { return joined(tokenizer->encode(render_chat(chat, messages, golden_time()))); }, equal);
      }
    }
    EXPECT_EQ(equal, all) << name;
  }
}

TEST(ChatTemplate, JinjaIsThatOfTransformers) {
  const std::vector<ChatMessage> messages = {{"system", "Hi \u00e9 <x> 'q'"}, {"user", " a\u3000b "}};
  for (const auto& row : read_json("jinja.golden.json")) {
    const std::string source = row[0];
    SCOPED_TRACE(source);
    if (row[1].is_null()) {
      EXPECT_THROW(render_chat(chat_of(source), messages, golden_time()), base::UserError);
    } else {
      EXPECT_EQ(render_chat(chat_of(source), messages, golden_time()), row[1].get<std::string>());
    }
  }
}

TEST(ChatTemplate, WhatIsNotSupportedIsNamedNotGuessed) {
  const auto error = [](const std::string& source) -> std::string {
    try {
      return "no error: " + render_chat(chat_of(source), {{"user", "u"}});
    } catch (const base::UserError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(error("a\n{{ 'x'|center(9) }}"),
            "the model's chat template fails in line 2: the filter 'center' is not supported");
  EXPECT_THAT(error("{{ 'x'.zfill(3) }}"), HasSubstr("str.zfill() is not supported"));
  EXPECT_THAT(error("{{ 1 is escaped }}"), HasSubstr("the test 'escaped' is not supported"));
  EXPECT_THAT(error("{{ 1 < 2 < 3 }}"), HasSubstr("a chain of comparisons is not supported"));
  EXPECT_THAT(error("{{ '{:>3}'.format(1) }}"), HasSubstr("is not supported"));
  EXPECT_THAT(error("{{ 'a<'|safe + '<' }}"), HasSubstr("marked as safe"));
  EXPECT_THAT(error("{% include 'x' %}"), HasSubstr("Unknown statement: include"));
  EXPECT_THAT(error("{{ 'a' "), HasSubstr("the model's chat template cannot be read: "));
  EXPECT_THAT(error("{% for m in messages %}"), HasSubstr("the model's chat template cannot be read: "));
  EXPECT_THAT(error("{{ raise_exception('Only tools!') }}"),
              HasSubstr("the model's chat template says: Only tools!"));
}

TEST(ChatTemplate, NeedsATemplateAndAMessage) {
  EXPECT_THROW(render_chat({}, {{"user", "hi"}}), base::UserError);
  EXPECT_THROW(render_chat(chat_of("x"), {}), base::UserError);
}

TEST(ChatTemplate, IsFoundWhereTransformersFindsIt) {
  const TemporaryFolder folder;
  std::filesystem::copy(golden_folder("llama3") / "tokenizer.json", folder.path() / "tokenizer.json");
  const auto found = [&] { return Tokenizer::load(folder.path())->chat_template(); };
  EXPECT_EQ(found().source, "");
  folder.write("chat_template.json", R"({"chat_template": "old file"})");
  EXPECT_EQ(found().source, "old file");
  folder.write("tokenizer_config.json", R"({"chat_template": "in config"})");
  EXPECT_EQ(found().source, "in config");
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"},
                                                              {"name": "default", "template": "d"}]})");
  EXPECT_EQ(found().source, "d");
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"}]})");
  EXPECT_EQ(found().source, "");
  EXPECT_THAT(found().why_none, HasSubstr("the chat templates tool_use, but none named default"));
  folder.write("chat_template.jinja", "in file");
  EXPECT_EQ(found().source, "in file");
  std::filesystem::create_directory(folder.path() / "additional_chat_templates");
  folder.write("additional_chat_templates/rag.jinja", "r");
  EXPECT_EQ(found().source, "in file");
  std::filesystem::remove(folder.path() / "chat_template.jinja");
  EXPECT_EQ(found().source, "");
  EXPECT_THAT(found().why_none, HasSubstr("the chat templates rag, but none named default"));
  folder.write("tokenizer_config.json", R"({"chat_template": 3})");
  std::filesystem::remove_all(folder.path() / "additional_chat_templates");
  EXPECT_THROW(found(), base::UserError);
}

TEST(ChatTemplate, SeesTheNamedTokensOfTheModel) {
  const TemporaryFolder folder;
  std::filesystem::copy(golden_folder("llama3") / "tokenizer.json", folder.path() / "tokenizer.json");
  folder.write("special_tokens_map.json", R"({"eos_token": "<s>", "pad_token": "</s>"})");
  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": null,
    "add_bos_token": true, "image_token": "<image>", "extra_special_tokens": {"boi_token": "<boi>"}})");
  using Variables = std::map<std::string, std::string>;
  const auto variables = [&] { return Tokenizer::load(folder.path())->chat_template().variables; };
  EXPECT_EQ(variables(), (Variables{{"boi_token", "<boi>"},
                                    {"bos_token", "<s>"},
                                    {"eos_token", "<s>"},
                                    {"image_token", "<image>"},
                                    {"pad_token", "</s>"}}));
  // A config that lists its added tokens stands alone.
  folder.write("tokenizer_config.json", R"({"eos_token": "</s>", "added_tokens_decoder": {}})");
  EXPECT_EQ(variables(), (Variables{{"eos_token", "</s>"}}));
}

TEST(ChatTemplate, SeesTheTokensThatTheTokenizersClassBringsAlong) {
  const TemporaryFolder folder;
  std::filesystem::copy(golden_folder("sentencepiece") / "tokenizer.model",
                        folder.path() / "tokenizer.model");
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "eos_token": null})");
  const auto variables = Tokenizer::load(folder.path())->chat_template().variables;
  EXPECT_EQ(variables.at("bos_token"), "<s>");
  EXPECT_FALSE(variables.contains("eos_token"));
}

}  // namespace ee::tokenizer
