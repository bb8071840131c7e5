#include "ee/infer/batch_generate.h"

#include <gtest/gtest.h>

#include <map>

#include "ee/base/error.h"
#include "support/tiny_model.h"

namespace ee::infer {
namespace {

// Fourteen prompts of 1 to 20 tokens; an end token ends some of the answers early.
struct BatchGenerate : ::testing::Test {
  static constexpr int64_t kNewTokens = 24;

  BatchGenerate() {
    std::mt19937_64 random(7);
    for (size_t i = 0; i < 14; ++i) {
      requests.push_back({.prompt = {}, .seed = 100 + i});
      for (size_t length = 1 + random() % 20; length > 0; --length) {
        requests.back().prompt.push_back(static_cast<int64_t>(random() % 97));
      }
    }
  }

  // One sequence at a time with the early-exit engine, which runs the full model here.
  BatchAnswer alone(const BatchRequest& request, SamplingOptions sampling) const {
    sampling.seed = request.seed;
    Engine engine(backbone, {},
                  {.capacity = static_cast<int64_t>(request.prompt.size()) + kNewTokens, .threshold = 1.0});
    Sampler sampler(sampling);
    BatchAnswer answer;
    std::vector<int64_t> input = request.prompt;
    while (std::ssize(answer.tokens) < kNewTokens) {
      const Prediction prediction = engine.step(input);
      input = {sampler.sample(prediction.logits, prediction.token)};
      answer.tokens.push_back(input.front());
      if (std::ranges::find(ends, input.front()) != ends.end()) {
        answer.finish = FinishReason::eos;
        break;
      }
    }
    return answer;
  }

  std::map<size_t, BatchAnswer> together(int64_t batch, const SamplingOptions& sampling) const {
    std::map<size_t, BatchAnswer> answers;
    generate_batch(backbone, requests, ends,
                   {.batch = batch, .max_new_tokens = kNewTokens, .sampling = sampling},
                   [&](size_t request, BatchAnswer answer) {
                     EXPECT_TRUE(answers.emplace(request, std::move(answer)).second) << "twice: " << request;
                   });
    return answers;
  }

  void expect_equal_for_every_batch(const SamplingOptions& sampling) const {
    std::vector<BatchAnswer> expected;
    size_t ended = 0;
    for (const BatchRequest& request : requests) {
      expected.push_back(alone(request, sampling));
      ended += expected.back().finish == FinishReason::eos;
    }
    EXPECT_GT(ended, 1u) << "some answers must end early for this test to say something";
    EXPECT_LT(ended, requests.size());
    for (const int64_t batch : {1, 2, 5, 14, 40}) {
      const auto answers = together(batch, sampling);
      ASSERT_EQ(answers.size(), requests.size()) << "batch " << batch;
      for (const auto& [request, answer] : answers) {
        EXPECT_EQ(answer.tokens, expected[request].tokens) << "batch " << batch << ", request " << request;
        EXPECT_EQ(answer.finish, expected[request].finish);
      }
    }
  }

  model::Backbone backbone = test::tiny_backbone(test::tiny_config());
  std::vector<BatchRequest> requests;
  std::vector<int64_t> ends = {3, 11, 30, 55, 71, 90};
};

TEST_F(BatchGenerate, GreedyTokensAreThoseOfOneSequenceAtATime) { expect_equal_for_every_batch({}); }

TEST_F(BatchGenerate, SampledTokensAreThoseOfOneSequenceAtATime) {
  expect_equal_for_every_batch({.temperature = 0.8, .top_p = 0.9});
}

TEST_F(BatchGenerate, PromptsWithACommonBeginningToo) {
  const std::vector<int64_t> beginning = {5, 6, 7, 8, 9, 10, 11};
  for (BatchRequest& request : requests) {
    request.prompt.insert(request.prompt.begin(), beginning.begin(), beginning.end());
  }
  requests.push_back({.prompt = beginning, .seed = 1});  // nothing but what is shared
  requests.push_back({.prompt = beginning, .seed = 2});
  expect_equal_for_every_batch({.temperature = 2.0});
}

TEST_F(BatchGenerate, OneTokenEndsEveryAnswerAtItsPrompt) {
  size_t answers = 0;
  generate_batch(backbone, requests, {}, {.batch = 3, .max_new_tokens = 1}, [&](size_t, BatchAnswer answer) {
    ++answers;
    EXPECT_EQ(answer.tokens.size(), 1u);
    EXPECT_EQ(answer.finish, FinishReason::length);
  });
  EXPECT_EQ(answers, requests.size());
}

TEST_F(BatchGenerate, NoPromptAndAPromptWithoutTokensAreRefused) {
  const auto message = [&](std::span<const BatchRequest> some) -> std::string {
    try {
      generate_batch(backbone, some, ends, {}, [](size_t, BatchAnswer) { FAIL(); });
    } catch (const base::UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({}), "there is no prompt to answer; give at least one");
  requests[4].prompt.clear();
  EXPECT_EQ(message(requests), "prompt 5 has no tokens; give some text");
  requests[4].name = "prompts.txt, prompt 7";
  EXPECT_EQ(message(requests), "prompts.txt, prompt 7 has no tokens; give some text");
}

TEST_F(BatchGenerate, OptionsOutOfRangeAreRefused) {
  EXPECT_THROW(check_batch_options({.batch = 0}), base::UserError);
  EXPECT_THROW(check_batch_options({.max_new_tokens = 0}), base::UserError);
  EXPECT_THROW(check_batch_options({.sampling = {.temperature = -1.0}}), base::UserError);
}

}  // namespace
}  // namespace ee::infer
