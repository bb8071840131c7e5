#include "ee/train/job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace ee::train {
using config::ExitKind, config::ExitsConfig, config::ExitsOptions, config::NormKind;
using testing::HasSubstr;

namespace {

const ExitsConfig kExits = {.exits = {{.layer = 2, .weight = 0.5},
                                      {.layer = 4},
                                      {.layer = 5, .kind = ExitKind::norm, .norm = NormKind::shared}},
                            .backbone_fingerprint = "x"};

std::vector<config::ExitSpec> select(const ExitsOptions& options) {
  return select_exits(kExits, options, test::tiny_config());
}

std::string error_of(const ExitsOptions& options) {
  try {
    select(options);
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "no error";
}

ExitsOptions train_only(std::vector<int64_t> layers) {
  ExitsOptions options;
  options.train = std::move(layers);
  return options;
}

}  // namespace

TEST(SelectExits, TakesTheNamedOnesInOrder) {
  const auto selected = select(train_only({4, 2}));
  ASSERT_EQ(selected.size(), 2u);
  EXPECT_EQ(selected[0], kExits.exits[0]);
  EXPECT_EQ(selected[1], kExits.exits[1]);
}

TEST(SelectExits, OverridesReplaceWhatTheyName) {
  auto options = train_only({2, 4});
  options.overrides = {{.layer = 4, .weight = 0.25, .temperature = {}},
                       {.layer = 2, .weight = {}, .temperature = 3.0}};
  const auto selected = select(options);
  EXPECT_EQ(selected[0].weight, 0.5);
  EXPECT_EQ(selected[0].temperature, 3.0);
  EXPECT_EQ(selected[1].weight, 0.25);
  EXPECT_EQ(selected[1].temperature, 1.0);
}

TEST(SelectExits, EveryProblemIsNamedAtOnce) {
  auto options = train_only({2, 3, 9});
  options.overrides = {{.layer = 4, .weight = 1.0, .temperature = {}}};
  const auto message = error_of(options);
  EXPECT_THAT(message, HasSubstr("exits.train names layer 3, which has no exit"));
  EXPECT_THAT(message, HasSubstr("exits.train names layer 9"));
  EXPECT_THAT(message, HasSubstr("exits.overrides names layer 4, which is not trained"));
  EXPECT_THAT(message, HasSubstr("exits at layers 2, 4, 5"));
}

TEST(SelectExits, ExitWithoutOwnParametersCannotBeTrained) {
  EXPECT_THAT(error_of({}), HasSubstr("layer 5 has no parameters of its own"));
}

}  // namespace ee::train
