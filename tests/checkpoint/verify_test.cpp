#include "ee/checkpoint/verify.h"

#include <cmath>

#include "ee/base/error.h"
#include "ee/checkpoint/attach.h"
#include "folders.h"

namespace ee::checkpoint {
namespace {

using base::UserError;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class VerifyTest : public ::testing::Test {
 protected:
  std::vector<std::string> verify(const fs::path& folder) {
    std::vector<std::string> lines;
    verify_model_folder(folder, [&](const std::string& line) { lines.push_back(line); });
    return lines;
  }
  void expect_error(const fs::path& folder, const ::testing::Matcher<std::string>& matcher) {
    EXPECT_THAT([&] { verify(folder); }, ThrowsMessage<UserError>(matcher));
  }
  fs::path attached() {
    attach_exits({.source = write_folder(folder_ / "model", backbone_),
                  .output = folder_ / "out",
                  .exits = all_kinds()});
    return folder_ / "out";
  }

  TempFolder folder_;
  model::Backbone backbone_ = test::tiny_backbone(byte_config());
};

TEST_F(VerifyTest, PassesASoundFolderWithAndWithoutExits) {
  EXPECT_EQ(verify(write_folder(folder_ / "plain", backbone_)).size(), 4u);
  EXPECT_THAT(verify(attached()), Contains(HasSubstr("4 exits")));
}

TEST_F(VerifyTest, FindsOneNanAndOneInfinityAnywhere) {
  for (const double bad : {NAN, INFINITY}) {
    Tensors tensors = backbone_tensors(backbone_);
    const std::string name = "model.layers.5.mlp.down_proj.weight";
    tensors[name] = tensors[name].clone();
    tensors[name].view({-1}).select(0, -1).fill_(bad);
    expect_error(write_folder(folder_ / "bad", backbone_, tensors), AllOf(HasSubstr(name), HasSubstr("NaN")));
  }
  const fs::path path = attached();
  Tensors exits;
  {
    const TensorFiles files = TensorFiles::open_file(path / "exits.safetensors");
    for (const auto& [name, file] : files.names()) exits[name] = files.alias(name).clone();
  }
  exits["exits.3.norm.weight"].select(0, 7).fill_(NAN);
  write_tensors(path / "exits.safetensors", exits);
  expect_error(path, HasSubstr("exits.3.norm.weight"));
}

TEST_F(VerifyTest, FindsWeightsThatOverflow) {
  Tensors tensors = backbone_tensors(backbone_);
  for (const char* name : {"model.norm.weight", "lm_head.weight"}) tensors[name] = tensors[name].mul(1e30);
  expect_error(write_folder(folder_ / "bad", backbone_, tensors), HasSubstr("logits"));
}

TEST_F(VerifyTest, SaysThatATokenizerIsMissingOrHasMoreTokensThanTheModel) {
  const fs::path path = attached();
  fs::remove(path / "tokenizer.json");
  EXPECT_THAT(verify(path), Contains(HasSubstr("tokenizer: none")));
  config::ModelConfig config = byte_config();
  config.vocab_size = 97;
  const fs::path small = write_folder(folder_ / "small", test::tiny_backbone(config));
  EXPECT_THAT(verify(small),
              Contains(HasSubstr("256 tokens for a vocabulary of 97; text with the others is")));
  write_text(small / "tokenizer_config.json", R"({"eos_token": "z"})");
  expect_error(small, AllOf(HasSubstr("EOS token has the id"), HasSubstr("vocab_size 97")));
}

}  // namespace
}  // namespace ee::checkpoint
