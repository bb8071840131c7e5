// What exits read, kept on disk (data.exit_inputs).
#include "programs/tune_fixture.h"

namespace ee {
namespace fs = std::filesystem;
using ::testing::HasSubstr, ::testing::Not;

class KeptInputs : public Tune {
 protected:
  void configure(const nlohmann::json& changes = {}) const {
    nlohmann::json config = config_with(
        {{"data", {{"exit_inputs", true}, {"cache", (folder_ / "cache").string()}}}, {"steps", 20}});
    if (!changes.is_null()) config.merge_patch(changes);
    write("tune.json", config.dump(2));
  }

  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder_ / "cache"))
      if (entry.path().extension() == ".states") found.push_back(entry.path());
    return found;
  }

  double last_loss(const std::string& output) const {
    double loss = 0;
    for (const auto& row : read_metrics(folder_ / (output + ".logs")))
      if (row.contains("loss")) loss = row["loss"]["2"];
    return loss;
  }
};

TEST_F(KeptInputs, AreComputedOnceForAllRunsOnAText) {
  configure();
  const auto plan = run({"--dry-run"});
  EXPECT_THAT(plan.output, HasSubstr("on disk for what the exits read"));
  ASSERT_EQ(run().exit_code, 0);
  ASSERT_EQ(files().size(), 2U);
  const auto written = fs::last_write_time(files()[0]);
  configure({{"output", (folder_ / "second").string()},
             {"optimizer", {{"lr", 0.002}}},
             {"steps", 400}});  // several epochs: now all sequences
  ASSERT_EQ(run().exit_code, 0);
  EXPECT_EQ(files().size(), 2U);
  EXPECT_GT(fs::last_write_time(files()[0]), written);
  const auto complete = fs::last_write_time(files()[0]);
  configure({{"output", (folder_ / "third").string()}, {"steps", 10}, {"data", {{"shuffle", false}}}});
  ASSERT_EQ(run().exit_code, 0);
  EXPECT_EQ(fs::last_write_time(files()[0]), complete);
}

TEST_F(KeptInputs, TrainTheSameExits) {
  configure();
  ASSERT_EQ(run().exit_code, 0);
  write("tune.json", config_with({{"output", (folder_ / "plain-run").string()}, {"steps", 20}}).dump(2));
  ASSERT_EQ(run().exit_code, 0);
  EXPECT_NEAR(last_loss("out"), last_loss("plain-run"), 1e-5);
  EXPECT_GT(last_loss("out"), 0);
}

TEST_F(KeptInputs, OfAnotherModelAreOthers) {
  configure();
  ASSERT_EQ(run().exit_code, 0);
  auto other = test::tiny_config();
  other.rms_norm_eps = 1e-4;
  test::write_model(folder_ / "other-plain", other);
  checkpoint::attach_exits({.source = folder_ / "other-plain",
                            .output = folder_ / "other",
                            .exits = {{.layer = 2, .kind = config::ExitKind::mlp}},
                            .dtype = {}});
  configure({{"model", {{"path", (folder_ / "other").string()}}}, {"output", (folder_ / "second").string()}});
  ASSERT_EQ(run().exit_code, 0);
  EXPECT_EQ(files().size(), 3U);
}

TEST_F(KeptInputs, DamageIsFoundAndNamed) {
  configure();
  ASSERT_EQ(run().exit_code, 0);
  for (const auto& file : files()) {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(-10, std::ios::end);
    bytes.put('X');
    bytes.seekp(static_cast<std::streamoff>(fs::file_size(file) / 2));
    for (int i = 0; i < 20000; ++i) bytes.put('X');
  }
  configure({{"output", (folder_ / "second").string()}});
  const auto finished = run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr("is missing or damaged; delete the file"));
  EXPECT_FALSE(fs::exists(folder_ / "second"));
}

TEST_F(KeptInputs, AreRefusedWhereTheBackboneChanges) {
  configure({{"train", "all"}});
  const auto finished = run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr("keeps what a frozen backbone computes"));
}

}  // namespace ee
