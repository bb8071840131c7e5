// Measuring ends where a head says no number, and names head, sequence and position.
#include "ee/infer/not_finite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "ee/eval/calibrate.h"
#include "ee/eval/evaluate.h"
#include "ee/eval/score.h"
#include "support/tiny_model.h"

namespace ee::eval {
namespace {

using ::testing::AllOf, ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct BrokenMeasure : ::testing::Test {
  BrokenMeasure() {
    model.backbone = test::tiny_backbone(test::tiny_config());
    model.exits = test::tiny_exits(
        model.backbone, {{.layer = 2, .kind = config::ExitKind::mlp, .head = config::HeadKind::own},
                         {.layer = 4, .kind = config::ExitKind::norm, .head = config::HeadKind::own}});
    for (int64_t i = 0; i < 40; ++i) {  // token 90 is the third one of sequence 8
      sequences.push_back({.tokens = {1, 2, i == 7 ? 90 : 3, 4}, .targets = {2, 3, 4, 5}});
    }
  }
  template <typename Measure>
  static std::string error_of(const Measure& measure) {
    try {
      measure();
    } catch (const infer::NotFinite& error) {
      return error.what();
    }
    return "no error";
  }
  std::string evaluation() const {
    return error_of([&] { evaluate(model, sequences); });
  }
  std::string scores() const {
    return error_of([&] { score_tokens(model, sequences[7].tokens, "lines.jsonl:8"); });
  }
  std::string calibration() {
    return error_of([&] { calibrate(model, sequences, {.agreements = {0.9}}); });
  }

  infer::Model model;
  Sequences sequences;
};

// Not the position: attention to a whole sequence multiplies what is masked by 0, and NaN stays NaN.
TEST_F(BrokenMeasure, ASequenceIsNamed) {
  model.backbone.embedding[90].fill_(kNan);
  EXPECT_THAT(evaluation(), AllOf(HasSubstr("the exit at layer 2 are NaN"), HasSubstr("of sequence 8")));
  EXPECT_THAT(scores(), AllOf(HasSubstr("the exit at layer 2 are NaN"), HasSubstr("of lines.jsonl:8")));
  EXPECT_THAT(calibration(), HasSubstr("sequence 8"));
}

TEST_F(BrokenMeasure, AnExitsHeadIsNamed) {
  for (const double value : {kNan, kInfinity, -kInfinity}) {
    model.exits[1].head[50].fill_(value);
    for (const std::string& error : {evaluation(), scores(), calibration()}) {
      EXPECT_THAT(error, HasSubstr("the logits of the exit at layer 4 are NaN")) << value;
    }
  }
}

TEST_F(BrokenMeasure, FinalNormIsTheFinalLayers) {
  model.backbone.final_norm[0].fill_(kNan);
  model.exits.clear();
  EXPECT_THAT(evaluation(), HasSubstr("the logits of the final layer are NaN or infinite at position 0"));
  EXPECT_THAT(scores(), HasSubstr("the final layer"));
}

TEST_F(BrokenMeasure, AGateIsNamed) {
  for (exits::ExitHead& exit : model.exits) {
    exit.gate = at::zeros({2, model.backbone.config.hidden_size + 3});
  }
  model.exits[1].gate[0][0].fill_(kNan);
  EXPECT_THAT(error_of([&] { measure(model, {}, sequences); }),
              HasSubstr("the gate's probability at the exit at layer 4 is NaN"));
}

}  // namespace
}  // namespace ee::eval
