// A chat model as GGUF whose end of text is <|endoftext|>, while its answers end in <|im_end|>.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "checkpoint/gguf_writer.h"
#include "support/process.h"

namespace ee {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kEndOfText = 256, kEndOfTurn = 257;

class EndOfTurn : public testing::Test {
 protected:
  // All that it ever says is <|im_end|>: the hidden state is positive everywhere, and so is one row of the
  // head.
  void SetUp() override {
    model::Backbone backbone = test::tiny_backbone(checkpoint::byte_config());
    backbone.embedding.fill_(100);
    backbone.head.zero_();
    backbone.head[kEndOfTurn].fill_(1);
    checkpoint::GgufWriter gguf = checkpoint::gguf_of(backbone);
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(checkpoint::byte_spelling(byte));
    tokens[255] = "ab";  // what the merge makes
    tokens.insert(tokens.end(), {"<|endoftext|>", "<|im_end|>", "<|258|>", "<|259|>"});
    gguf.set("tokenizer.ggml.tokens", tokens);
    gguf.set("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(kEndOfText));
    gguf.write(folder_ / "model.gguf");
  }
  std::string path(const char* name) const { return (folder_ / name).string(); }
  void run(const std::string& program, const std::vector<std::string>& args) const {
    const auto finished = test::Process(EE_BIN_DIR "/" + program, args, folder_ / "output.log").wait();
    ASSERT_EQ(finished.exit_code, 0) << finished.output;
  }

  checkpoint::TempFolder folder_;
};

TEST_F(EndOfTurn, EndsAnAnswerOfEeInfer) {
  run("ee-convert",
      {"attach", "--model", path("model.gguf"), "--exit-layers", "3", "--output", path("model")});
  for (const char* name : {"model/config.json", "model/generation_config.json"}) {
    const auto config = nlohmann::json::parse(base::read_text_file(folder_ / name));
    EXPECT_EQ(config.at("eos_token_id"), nlohmann::json({kEndOfText, kEndOfTurn})) << name;
  }
  run("ee-infer",
      {"--model", path("model"), "--prompt", "cd", "--max-new-tokens", "20", "--threads", "1", "--json"});
  const auto said = nlohmann::json::parse(base::read_text_file(folder_ / "output.log"));
  EXPECT_EQ(said.at("finish"), "eos");
  ASSERT_EQ(said.at("tokens").size(), 1u);
  EXPECT_EQ(said.at("tokens")[0].at("id"), kEndOfTurn);
  EXPECT_EQ(said.at("text"), "");
}

TEST_F(EndOfTurn, EndsAnAnswerThatIsToBeLearned) {
  std::ofstream(folder_ / "prompts.txt") << "cd\n";
  run("ee-tune", {"prepare", "--self", "--model", path("model.gguf"), "--prompts", path("prompts.txt"),
                  "--output", path("answers.jsonl"), "--max-new-tokens", "20", "--threads", "1"});
  const auto line = nlohmann::json::parse(base::read_text_file(folder_ / "answers.jsonl"));
  EXPECT_EQ(line.at("finish"), "eos");
  EXPECT_EQ(line.at("tokens"), nlohmann::json({'c', 'd', kEndOfTurn}));
}

}  // namespace
}  // namespace ee
