// The real model against Hugging Face transformers: golden/logits.safetensors is made by make_golden.py.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "ee/checkpoint/attach.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/checkpoint/verify.h"
#include "ee/tokenizer/tokenizer.h"
#include "support/smollm2.h"

namespace ee {
namespace {
namespace fs = std::filesystem;

class SmolLm2 : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = fs::path(::testing::TempDir()) / fmt::format("smollm2-{}", ::getpid());
    checkpoint::attach_exits({.source = test::smollm2_gguf(),
                              .output = folder_,
                              .exits = config::read_exit_specs(source_dir() / "exits.json", 30),
                              .dtype = std::nullopt});
  }
  static void TearDownTestSuite() { fs::remove_all(folder_); }
  static fs::path source_dir() { return fs::path(EE_SOURCE_DIR) / "tests/smollm2"; }

  static inline fs::path folder_;
  checkpoint::TensorFiles golden_ =
      checkpoint::TensorFiles::open_file(source_dir() / "golden/logits.safetensors");

  // `hidden` [1, seq, hidden], in front of the output embedding.
  void expect_golden(const std::string& name, const at::Tensor& hidden, const at::Tensor& head) {
    const at::Tensor logits = at::linear(hidden[0], head);  // [seq, vocab]
    EXPECT_TRUE(at::equal(logits.argmax(-1), golden_.alias(name + ".argmax"))) << name;
    const at::Tensor difference =
        logits.index_select(1, golden_.alias("vocab")) - golden_.alias(name + ".logits");
    EXPECT_LE(difference.abs().max().item<float>(), 1e-3) << name;
  }
};

TEST_F(SmolLm2, LogitsOfEveryExitEqualTransformers) {
  const auto folder = checkpoint::ModelFolder::open(folder_);
  const auto backbone = checkpoint::load_backbone(folder, {});
  const auto exits = checkpoint::load_exits(folder, backbone, {}, at::kFloat);
  ASSERT_EQ(exits.size(), 5u);
  size_t compared = 0;
  const auto listen = [&](int64_t depth, const model::LayerTrace& trace) {
    for (const auto& exit : exits) {
      if (exit.spec.depth() != depth) continue;
      expect_golden(std::to_string(exit.spec.layer),
                    exit.forward(backbone, exits::exit_input(exit.spec, trace)), exit.head);
      ++compared;
    }
  };
  const at::Tensor tokens = golden_.alias("tokens").unsqueeze(0);  // [1, seq]
  const at::Tensor stream = model::run_layers(backbone, tokens, 30, listen);
  expect_golden("final", model::rms_norm(stream, backbone.final_norm, backbone.config.rms_norm_eps),
                backbone.head);
  EXPECT_EQ(compared, exits.size());
}

TEST_F(SmolLm2, TokenIdsEqualTransformers) {
  const auto tokenizer = tokenizer::Tokenizer::load(folder_);
  const at::Tensor expected = golden_.alias("tokens");
  const int64_t* ids = expected.const_data_ptr<int64_t>();
  const std::string text = base::read_text_file(source_dir() / "text.txt");
  EXPECT_EQ(tokenizer->encode(text), std::vector<int64_t>(ids, ids + expected.numel()));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST_F(SmolLm2, VerifyAcceptsTheAttachedFolder) {
  std::vector<std::string> lines;
  checkpoint::verify_model_folder(folder_, [&](const std::string& line) { lines.push_back(line); });
  EXPECT_GE(lines.size(), 4u);
}

}  // namespace
}  // namespace ee
