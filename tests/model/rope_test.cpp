// The angles of the positions at hand against those of a table of all positions; when they are computed.
#include "ee/model/rope.h"

#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>

#include <thread>

#include "operators.h"
#include "support/tiny_model.h"

namespace ee::model {
namespace {

config::ModelConfig long_config(int64_t positions) {
  config::ModelConfig config = test::tiny_config();
  config.head_dim = 64;
  config.max_positions = positions;
  return config;
}

// As transformers computes them, all at once: f32 positions times f32 frequencies.
RopeRows whole_table(const config::ModelConfig& config) {
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kFloat) / config.head_dim;
  const at::Tensor frequencies = at::pow(config.rope.theta, exponents).reciprocal();
  const at::Tensor angles = at::outer(at::arange(config.max_positions, at::kFloat), frequencies);
  return {at::cos(angles), at::sin(angles)};
}

void expect_same(const RopeRows& rows, const RopeRows& table, int64_t first) {
  const int64_t count = rows.cos.size(0);
  EXPECT_TRUE(at::equal(rows.cos, table.cos.narrow(0, first, count))) << first << " + " << count;
  EXPECT_TRUE(at::equal(rows.sin, table.sin.narrow(0, first, count))) << first << " + " << count;
}

TEST(Rope, RowsAreTheBitsOfAWholeTable) {
  for (const int64_t head_dim : {2, 8, 20, 64, 128}) {
    config::ModelConfig config = long_config(20000);
    config.head_dim = head_dim;
    const RopeRows table = whole_table(config);
    const Rope one_by_one(config, at::kCPU);
    for (int64_t position = 0; position < 2000; ++position) {
      expect_same(one_by_one.rows(position, 1), table, position);
    }
    const Rope jumping(config, at::kCPU);
    for (const auto& [first, count] :
         {std::pair{0, 3}, {7, 1}, {250, 13}, {5001, 777}, {19999, 1}, {0, 20000}}) {
      expect_same(jumping.rows(first, count), table, first);
    }
  }
}

TEST(Rope, PositionsFarOutDoNotDependOnHowMoreOfThemWereMade) {
  const config::ModelConfig config = long_config(1'000'000);
  const RopeRows table = whole_table(config);
  const Rope rope(config, at::kCPU);
  for (const auto& [first, count] : {std::pair{0, 300}, {99'990, 20}, {123'456, 1}, {999'990, 10}}) {
    expect_same(rope.rows(first, count), table, first);
  }
}

TEST(Rope, KeepsAtMostTwiceWhatWasAskedFor) {
  const Rope rope(long_config(1'000'000), at::kCPU);
  const auto kept = [&] { return static_cast<int64_t>(rope.rows(0, 1).cos.storage().nbytes()) / (32 * 4); };
  EXPECT_LE(kept(), 256);
  rope.rows(0, 3000);
  EXPECT_EQ(kept(), 3000);
  rope.rows(3000, 1);
  EXPECT_EQ(kept(), 6000);
  const Rope copy = rope;
  copy.rows(6000, 1);
  EXPECT_EQ(kept(), 12000) << "copies share what is kept";
}

TEST(Rope, EndsWithTheModelsPositions) {
  const Rope rope(long_config(1000), at::kCPU);
  EXPECT_EQ(rope.rows(600, 1).cos.size(0), 1);
  EXPECT_EQ(rope.rows(999, 1).sin.size(0), 1);
  EXPECT_THROW(rope.rows(1000, 1), base::InternalError);
  EXPECT_THROW(rope.rows(999, 2), base::InternalError);
  EXPECT_THROW(Rope().rows(0, 1), base::InternalError);
}

TEST(Rope, RowsMadeWhileDecodingServeTraining) {
  const Rope rope(long_config(1000), at::kCPU);
  {
    const c10::InferenceMode decoding;
    rope.rows(0, 10);
  }
  const at::Tensor x = at::randn({10, 32}).requires_grad_();
  x.mul(rope.rows(0, 10).cos).sum().backward();
  EXPECT_TRUE(x.grad().defined());
}

TEST(Rope, SeveralThreadsMayAsk) {
  const config::ModelConfig config = long_config(4096);
  const RopeRows table = whole_table(config);
  const Rope rope(config, at::kCPU);
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t first = t; first + 5 < 4096; first += 37) {
        EXPECT_TRUE(at::equal(rope.rows(first, 5).cos, table.cos.narrow(0, first, 5)));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace ee::model
