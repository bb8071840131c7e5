#include "ee/checkpoint/training_state.h"

#include <sys/resource.h>

#include <csignal>

#include "ee/base/error.h"
#include "folders.h"

namespace ee::checkpoint {
namespace {

using base::UserError;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

using Tensors = std::map<std::string, at::Tensor>;

struct Example {
  TrainingState state;
  Tensors exits, optimizer;
};

Example example(int64_t step, std::optional<double> metric = std::nullopt) {
  Example checkpoint;
  checkpoint.state = {.step = step,
                      .samples_consumed = 16 * step,
                      .rng = "12 34",
                      .config_echo = R"({"lr": 0.1})",
                      .model_fingerprint = "abc",
                      .metric = metric,
                      .best_metric = 0.1 + 0.2,
                      .metrics = {{"tokens", 1e15}, {"third", 1.0 / 3}}};
  checkpoint.exits["exits.2.norm.weight"] = at::full({8}, static_cast<double>(step));
  checkpoint.optimizer["exits.2.norm.weight.exp_avg"] = at::rand({8});
  return checkpoint;
}

TensorSources sources(const Tensors& tensors) {
  TensorSources result;
  for (const auto& [name, tensor] : tensors)
    result.push_back({name, tensor.sizes().vec(), [tensor = tensor] { return tensor; }});
  return result;
}

fs::path save(const fs::path& root, const Example& checkpoint) {
  return save_training_state(
      root, checkpoint.state,
      {.exits = sources(checkpoint.exits), .optimizer = sources(checkpoint.optimizer)});
}

class TrainingStateTest : public ::testing::Test {
 protected:
  std::optional<fs::path> latest() {
    warnings_.clear();
    return find_latest_training_state(root(), [&](const std::string& text) { warnings_.push_back(text); });
  }
  const fs::path& root() const { return folder_.path(); }
  std::vector<std::string> names() const {
    std::vector<std::string> names = unexpected_names(root(), {});
    std::sort(names.begin(), names.end());
    return names;
  }

  TempFolder folder_;
  std::vector<std::string> warnings_;
};

TEST_F(TrainingStateTest, ComesBackBitForBit) {
  const Example saved = example(30, 2.5);
  const fs::path path = save(root(), saved);
  EXPECT_EQ(path.filename(), "step-30");
  const TrainingCheckpoint loaded = open_training_state(path);
  EXPECT_EQ(loaded.state, saved.state);
  ASSERT_EQ(loaded.exits.names().size(), 1u);
  EXPECT_TRUE(at::equal(loaded.exits.alias("exits.2.norm.weight"), saved.exits.begin()->second));
  EXPECT_TRUE(
      at::equal(loaded.optimizer.alias("exits.2.norm.weight.exp_avg"), saved.optimizer.begin()->second));
}

TEST_F(TrainingStateTest, SurvivesValuesThatJsonCannotHold) {
  Example checkpoint = example(1, std::nan(""));
  checkpoint.state.metrics["loss"] = std::nan("");
  checkpoint.state.config_echo = "\xff";
  const TrainingState state = open_training_state(save(root(), checkpoint)).state;
  EXPECT_EQ(state.metric, std::nullopt);
  EXPECT_FALSE(state.metrics.contains("loss"));
}

TEST_F(TrainingStateTest, LatestIsTheHighestNumber) {
  EXPECT_EQ(latest(), std::nullopt);
  for (const int64_t step : {9, 100, 20}) save(root(), example(step));
  EXPECT_EQ(latest()->filename(), "step-100");
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_EQ(find_latest_training_state(root() / "absent", [](const auto&) {}), std::nullopt);
}

TEST_F(TrainingStateTest, PassesOverWhatIsNotComplete) {
  for (const int64_t step : {1, 2, 3, 4, 5, 6}) save(root(), example(step));
  fs::remove(root() / "step-6/manifest.json");
  fs::resize_file(root() / "step-5/exits.safetensors", 40);
  fs::remove(root() / "step-4/state.json");
  std::string flipped = bytes_of(root() / "step-3/optimizer.safetensors");
  flipped.back() ^= 1;
  write_text(root() / "step-3/optimizer.safetensors", flipped);
  write_text(root() / "step-2/manifest.json", "{\"files\": 3}");
  EXPECT_EQ(latest()->filename(), "step-1");
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr("step-6"), HasSubstr("manifest.json")),
                                     AllOf(HasSubstr("step-5"), HasSubstr("exits.safetensors")),
                                     AllOf(HasSubstr("step-4"), HasSubstr("state.json is missing")),
                                     AllOf(HasSubstr("step-3"), HasSubstr("optimizer.safetensors")),
                                     HasSubstr("step-2")));
  for (const char* name : {"step-2", "step-3", "step-4", "step-5", "step-6"})
    EXPECT_THROW(open_training_state(root() / name), UserError) << name;
}

TEST_F(TrainingStateTest, SavingAStepAgainReplacesIt) {
  save(root(), example(7));
  Example again = example(7);
  again.exits.begin()->second.fill_(-1);
  save(root(), again);
  EXPECT_TRUE(at::equal(open_training_state(*latest()).exits.alias("exits.2.norm.weight"),
                        again.exits.begin()->second));
  EXPECT_THAT(names(), ElementsAre("step-7"));
}

TEST_F(TrainingStateTest, PruneKeepsTheLastAndTheBest) {
  for (const int64_t step : {1, 2, 3, 4, 10}) save(root(), example(step, step == 2 ? 1.0 : 2.0));
  for (const char* name : {".step-11.partial-123", "..step-3.new.partial-123", ".step-1.deleted"})
    fs::create_directory(root() / name);  // what kill -9 leaves
  write_text(root() / "notes.txt", "");
  prune_training_states(root(), {.saved_step = 10, .keep_last = 2, .keep_best = true});
  EXPECT_THAT(names(), ElementsAre("notes.txt", "step-10", "step-2", "step-4"));
  prune_training_states(root(), {.saved_step = 10, .keep_last = 1, .keep_best = false});
  EXPECT_THAT(names(), ElementsAre("notes.txt", "step-10"));
}

TEST_F(TrainingStateTest, PruneCountsNoBrokenOnes) {
  for (const int64_t step : {1, 2, 3, 4, 9}) save(root(), example(step, step == 3 ? 1.0 : 2.0));
  fs::remove(root() / "step-2/manifest.json");
  fs::resize_file(root() / "step-3/optimizer.safetensors", 40);  // were the best
  fs::remove(root() / "step-9/state.json");                      // what the run could not resume from
  prune_training_states(root(), {.saved_step = 4, .keep_last = 2, .keep_best = true});
  EXPECT_THAT(names(), ElementsAre("step-1", "step-4", "step-9"));
}

TEST_F(TrainingStateTest, PruneReadsNoTensors) {
  for (const int64_t step : {1, 2, 3}) save(root(), example(step, static_cast<double>(step)));
  std::string flipped = bytes_of(root() / "step-1/exits.safetensors");
  flipped.back() ^= 1;
  write_text(root() / "step-1/exits.safetensors", flipped);
  prune_training_states(root(), {.saved_step = 3, .keep_last = 1, .keep_best = true});
  EXPECT_THAT(names(), ElementsAre("step-1", "step-3"));
}

// A run that replaces step-7 and is killed at any moment.
class ReplacedStepTest : public TrainingStateTest {
 protected:
  void SetUp() override {
    save(root() / "before", with_value(1));
    save(root() / "after", with_value(2));
    before_ = root() / "before/step-7";
    after_ = root() / "after/step-7";
    fs::create_directory(run_);
    save(run_, example(3));
  }
  static Example with_value(double value) {
    Example checkpoint = example(7);
    checkpoint.exits.begin()->second.fill_(value);
    return checkpoint;
  }
  void put(const fs::path& what, const std::string& name) {
    fs::copy(what, run_ / name, fs::copy_options::recursive);
  }
  void put_half(const fs::path& what, const std::string& name) {
    put(what, name);
    fs::remove(run_ / name / "manifest.json");
  }
  // Resume finds step 7 with `value`, and again when the run has saved another step and pruned.
  void expect_found(double value) {
    const auto found = [&] {
      const auto folder = find_latest_training_state(run_, [](const std::string&) {});
      const TrainingCheckpoint checkpoint = open_training_state(folder.value());
      EXPECT_EQ(checkpoint.state.step, 7) << *folder;
      return checkpoint.exits.alias("exits.2.norm.weight").select(0, 0).item<double>();
    };
    EXPECT_EQ(found(), value);
    EXPECT_EQ(found(), value) << "looking changes nothing";
    prune_training_states(run_, {.saved_step = 7, .keep_last = 1});
    EXPECT_EQ(found(), value);
    EXPECT_THAT(unexpected_names(run_, {"step-7"}), IsEmpty());
    save(run_, with_value(3));
    EXPECT_EQ(found(), 3);
    EXPECT_THAT(unexpected_names(run_, {"step-7"}), IsEmpty());
  }

  fs::path before_, after_, run_ = folder_ / "run";
};

TEST_F(ReplacedStepTest, KilledWhileItWritesKeepsTheOldOne) {
  put(before_, "step-7");
  put_half(after_, "..step-7.new.partial-1");
  expect_found(1);
}
TEST_F(ReplacedStepTest, KilledBeforeTheFirstRenameFinishes) {
  put(before_, "step-7");
  put(after_, ".step-7.new");
  expect_found(2);
}
TEST_F(ReplacedStepTest, KilledBetweenTheRenamesFinishes) {
  put(before_, ".step-7.old");
  put(after_, ".step-7.new");
  expect_found(2);
}
TEST_F(ReplacedStepTest, TakesTheOldOneBackWhenTheNewOneIsBroken) {
  put(before_, ".step-7.old");
  put_half(after_, ".step-7.new");
  expect_found(1);
}
TEST_F(ReplacedStepTest, TakesTheOldOneBackFromABrokenPlace) {
  put(before_, ".step-7.old");
  put_half(after_, "step-7");
  expect_found(1);
}
TEST_F(ReplacedStepTest, KilledBeforeTheOldOneIsDeletedClearsItAway) {
  put(after_, "step-7");
  put(before_, ".step-7.old");
  expect_found(2);
}
TEST_F(ReplacedStepTest, KilledWhileTheOldOneIsDeletedClearsItAway) {
  put(after_, "step-7");
  put_half(before_, ".step-7.old.deleted");
  expect_found(2);
}
TEST_F(ReplacedStepTest, KilledWhileItSettlesFinishesLater) {
  put(after_, ".step-7.new");
  put_half(before_, ".step-7.deleted");
  expect_found(2);
}

TEST_F(TrainingStateTest, FullDiskKeepsTheOlderOnes) {
  save(root(), example(1));
  Example large = example(2);
  large.exits["large"] = at::zeros({100000});
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 20000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THAT([&] { save(root(), large); }, ThrowsMessage<UserError>(HasSubstr("cannot write")));
  large.state.step = 1;  // replacing
  EXPECT_THROW(save(root(), large), UserError);
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(names(), ElementsAre("step-1"));
  EXPECT_EQ(open_training_state(*latest()).exits.names().size(), 1u);
}

}  // namespace
}  // namespace ee::checkpoint
