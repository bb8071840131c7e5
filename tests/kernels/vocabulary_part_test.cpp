#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <barrier>
#include <exception>
#include <numeric>
#include <string_view>
#include <thread>
#include <tuple>

#include "kernels/linear_cross_entropy_problem.h"

namespace ee::kernels {
namespace {

// Ranks as threads: a rank's gather() waits for the tensors of all.
class Ranks {
 public:
  explicit Ranks(int64_t count) : given_(count), calls_(count), barrier_(count) {}

  // Every gather() so far: dtype and sizes.
  const std::vector<std::string>& calls(int64_t rank) const { return calls_[rank]; }

  void run(const std::function<void(int64_t rank)>& body) {
    std::vector<std::thread> threads;
    std::vector<std::exception_ptr> errors(given_.size());
    for (size_t rank = 0; rank < given_.size(); ++rank)
      threads.emplace_back([&, rank] {
        try {
          body(static_cast<int64_t>(rank));
        } catch (...) {
          errors[rank] = std::current_exception();
        }
        barrier_.arrive_and_drop();  // the others need not wait for it any more
      });
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors)
      if (error) std::rethrow_exception(error);
    for (const auto& calls : calls_) EXPECT_EQ(calls, calls_[0]);
  }

  at::Tensor gather(int64_t rank, const at::Tensor& own) {
    EXPECT_TRUE(own.is_contiguous());
    calls_[rank].push_back(
        fmt::format("{} [{}]", c10::toString(own.scalar_type()), fmt::join(own.sizes(), ", ")));
    given_[rank] = own;
    barrier_.arrive_and_wait();
    at::Tensor all = at::stack(given_);
    barrier_.arrive_and_wait();  // before the next call replaces given_
    return all;
  }

 private:
  std::vector<at::Tensor> given_;
  std::vector<std::vector<std::string>> calls_;
  std::barrier<> barrier_;
};

using Sizes = std::vector<int64_t>;  // rows of each part

// For comparisons in which a NaN equals itself.
std::string_view bits(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.data_ptr()), tensor.nbytes()};
}

// What all ranks together compute: the hidden states' gradients added up, the weight's one after the other.
// The ranks' statistics are checked to be the same bits.
Result run_parts(const Problem& problem, const Sizes& sizes, const LinearCrossEntropyOptions& options,
                 std::vector<std::string>* calls = nullptr) {
  const auto count = std::ssize(sizes);
  Ranks ranks(count);
  std::vector<Result> results(count);
  ranks.run([&](int64_t rank) {
    const int64_t first = std::accumulate(sizes.begin(), sizes.begin() + rank, int64_t{0});
    LinearCrossEntropyOptions own = options;
    own.part = {.first = first,
                .vocabulary = problem.weight.size(0),
                .gather = [&, rank](const at::Tensor& given) { return ranks.gather(rank, given); }};
    Problem part = problem;
    part.weight = problem.weight.narrow(0, first, sizes[rank]);
    results[rank] = run(part, own);
  });
  Result all = results[0];
  std::vector<at::Tensor> grad_weights{all.grad_weight};
  EXPECT_EQ(all.grad_hidden.scalar_type(), at::kFloat);
  for (int64_t rank = 1; rank < count; ++rank) {
    const Result& other = results[rank];
    EXPECT_TRUE(bits(all.loss) == bits(other.loss));
    EXPECT_TRUE(bits(all.confidence) == bits(other.confidence));
    EXPECT_TRUE(at::equal(all.argmax, other.argmax));
    all.grad_hidden = all.grad_hidden.add(other.grad_hidden);
    grad_weights.push_back(other.grad_weight);
  }
  all.grad_weight = at::cat(grad_weights);
  if (calls) *calls = ranks.calls(0);
  return all;
}

// The whole vocabulary at once. f32 hidden states, so that the gradient is not rounded to bf16.
Result run_whole(Problem problem, const LinearCrossEntropyOptions& options) {
  problem.hidden = problem.hidden.to(at::kFloat);
  return run(problem, options);
}

// Confidence is exp(-log_sum): a last bit of log_sum near 9.4, of a flat distribution, is 0.95e-6 of it.
void expect_same(const Result& got, const Result& expected) {
  EXPECT_TRUE(at::allclose(got.loss, expected.loss, 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(got.confidence, expected.confidence, 1.2e-6, 0));
  EXPECT_TRUE(at::equal(got.argmax, expected.argmax));
  EXPECT_LT(relative_error(got.grad_hidden, expected.grad_hidden), 1e-6);
  EXPECT_LT(relative_error(got.grad_weight, expected.grad_weight), 1e-6);
}

using Setting = std::tuple<Sizes, at::ScalarType, double, double, bool>;

class VocabularyPartSettings : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override { at::manual_seed(11); }

  const Sizes& sizes() const { return std::get<0>(GetParam()); }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  LinearCrossEntropyOptions options() const {
    return {.temperature = std::get<3>(GetParam()),
            .gradient_filter = std::get<2>(GetParam()),
            .vocab_chunk = 500,
            .plain = std::get<4>(GetParam())};
  }
};

std::string name_of(const testing::TestParamInfo<Setting>& info) {
  const auto& [sizes, dtype, filter, temperature, plain] = info.param;
  return fmt::format("{}_{}_{}_{}_{}", fmt::join(sizes, "_"), c10::toString(dtype),
                     filter > 0 ? "Filter" : "Exact", temperature == 1 ? "T1" : "Warm",
                     plain ? "Plain" : "Fused");
}

INSTANTIATE_TEST_SUITE_P(Kernels, VocabularyPartSettings,
                         testing::Combine(testing::Values(Sizes{1500}, Sizes{1100, 400}, Sizes{501, 7, 992},
                                                          Sizes{700, 0, 800}, Sizes{0, 0, 1500}),
                                          testing::Values(at::kFloat, at::kBFloat16),
                                          testing::Values(0.0, 0x1p-14), testing::Values(1.0, 1.7),
                                          testing::Bool()),
                         name_of);

TEST_P(VocabularyPartSettings, TogetherEqualTheWholeVocabulary) {
  Problem problem(37, 48, 1500, 4, dtype());
  problem.targets.slice(0, 3, 30, 4).fill_(kIgnoreToken);
  problem.targets[0] = 0;
  problem.targets[1] = 1499;
  const Result got = run_parts(problem, sizes(), options());
  expect_same(got, run_whole(problem, options()));
  EXPECT_EQ(got.loss[3].item<float>(), 0);
  EXPECT_EQ(got.grad_hidden[3].abs().max().item<float>(), 0);
}

class VocabularyPartPaths : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override { at::manual_seed(5); }

  LinearCrossEntropyOptions options(double filter = 0) const {
    return {.gradient_filter = filter, .plain = GetParam()};
  }
};

INSTANTIATE_TEST_SUITE_P(Path, VocabularyPartPaths, testing::Bool(),
                         [](const auto& info) { return info.param ? "Plain" : "Fused"; });

// Nearly all entries pass the filter: more than a candidate list holds in the large parts, not in the small
// one.
TEST_P(VocabularyPartPaths, TokensMayOverflowOnSomeRanksOnly) {
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Problem problem(19, 24, 12000, 0.05, dtype);
    problem.hidden.slice(0, 0, 19, 3).mul_(200);  // some tokens stay sparse
    problem.targets[4] = kIgnoreToken;
    for (const Sizes& sizes :
         {Sizes{1000, 5500, 5500}, Sizes{3000, 9000}, Sizes{12000}, Sizes{4000, 4000, 4000}})
      expect_same(run_parts(problem, sizes, options(0x1p-14)), run_whole(problem, options(0x1p-14)));
  }
}

TEST_P(VocabularyPartPaths, FilterAboveAFlatDistributionLeavesTheTargetAlone) {
  const Problem problem(8, 24, 5000, 0.01);
  expect_same(run_parts(problem, {2000, 3000}, options(0.01)), run_whole(problem, options(0.01)));
}

// A vector added to all rows of the embedding changes no probability, so no gradient either: what was dropped
// is counted over all parts.
TEST_P(VocabularyPartPaths, FilteredGradientsDoNotSeeTheMeanRow) {
  Problem problem(24, 64, 3000, 4);
  const at::Tensor before = run_parts(problem, {1000, 2000}, options(1e-3)).grad_hidden;
  problem.weight.add_(at::full({64}, 2.0f));
  const at::Tensor after = run_parts(problem, {1000, 2000}, options(1e-3)).grad_hidden;
  EXPECT_LT(relative_error(after, before.to(at::kDouble)), 1e-4);
}

TEST_P(VocabularyPartPaths, OnlyStatisticsOfTokensAreExchanged) {
  const Problem problem(10, 16, 300, 2);
  std::vector<std::string> calls;
  run_parts(problem, {100, 200}, options(1e-3), &calls);
  EXPECT_EQ(calls, (std::vector<std::string>{"Float [3, 10]", "Long [10]", "Float [10]"}));
  run_parts(problem, {100, 200}, options(), &calls);
  EXPECT_EQ(calls, (std::vector<std::string>{"Float [3, 10]", "Long [10]"}));
}

TEST_P(VocabularyPartPaths, FirstOfEqualLogitsWins) {
  Problem problem(18, 16, 300, 2);
  problem.weight.copy_(problem.weight.slice(0, 0, 100).repeat({3, 1}));  // each row thrice
  EXPECT_LT(run_parts(problem, {0, 110, 190}, options()).argmax.max().item<int64_t>(), 100);
}

TEST_P(VocabularyPartPaths, NanIsNotHidden) {
  Problem problem(4, 16, 100, 1);
  problem.hidden[2][3] = NAN;
  const Result got = run_parts(problem, {40, 60}, options(1e-3));
  EXPECT_TRUE(std::isnan(got.loss[2].item<float>()));
  EXPECT_TRUE(std::isnan(got.grad_hidden[2][0].item<float>()));
  EXPECT_TRUE(std::isfinite(got.loss[1].item<float>()));
  EXPECT_GE(got.argmax.min().item<int64_t>(), 0);
  EXPECT_LT(got.argmax.max().item<int64_t>(), 100);
}

TEST_P(VocabularyPartPaths, NoTokens) {
  const Problem problem(0, 16, 100, 1);
  EXPECT_EQ(run_parts(problem, {40, 60}, options(1e-3)).grad_hidden.sizes(), (std::vector<int64_t>{0, 16}));
}

// Fewer panels of tokens than threads: each part is divided once more.
TEST(VocabularyPart, FewTokensAreSharedByThreads) {
  at::manual_seed(3);
  const Problem few(18, 64, 6000, 3), flat(3, 16, 30000, 0.05);
  const int threads = at::get_num_threads();
  at::set_num_threads(5);
  expect_same(run_parts(few, {2500, 3500}, {.gradient_filter = 1e-4}),
              run_whole(few, {.gradient_filter = 1e-4}));
  expect_same(run_parts(flat, {2000, 28000}, {.gradient_filter = 1e-6}),
              run_whole(flat, {.gradient_filter = 1e-6}));
  at::set_num_threads(threads);
}

TEST(VocabularyPart, StatisticsAloneAreTheSame) {
  const Problem problem(40, 64, 900, 3);
  const TokenStats whole = linear_token_stats(problem.hidden, problem.weight, problem.targets, 1.5);
  Ranks ranks(2);
  ranks.run([&](int64_t rank) {
    const VocabularyPart part{.first = rank * 300, .vocabulary = 900, .gather = [&](const at::Tensor& own) {
                                return ranks.gather(rank, own);
                              }};
    const TokenStats got = linear_token_stats(
        problem.hidden, problem.weight.narrow(0, part.first, 300 * (rank + 1)), problem.targets, 1.5, part);
    EXPECT_TRUE(at::allclose(got.loss, whole.loss, 1e-6, 1e-6));
    EXPECT_TRUE(at::allclose(got.confidence, whole.confidence, 1.2e-6, 0));
    EXPECT_TRUE(at::equal(got.argmax, whole.argmax));
  });
}

TEST(VocabularyPart, RefusesWhatDoesNotFit) {
  Problem problem(4, 16, 100, 1);
  const auto gather = [](const at::Tensor& own) { return own.unsqueeze(0); };
  EXPECT_THROW(run(problem, {.part = VocabularyPart{.first = 1, .vocabulary = 100, .gather = gather}}),
               base::InternalError);
  EXPECT_THROW(run(problem, {.part = VocabularyPart{.first = 0, .vocabulary = 100}}), base::InternalError);
  problem.targets[1] = 100;
  EXPECT_THROW(run_parts(problem, {40, 60}, {}), base::InternalError);
}

}  // namespace
}  // namespace ee::kernels
