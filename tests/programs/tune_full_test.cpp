// ee-tune with train.mode all: backbone and exits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "programs/tune_fixture.h"

namespace ee {
namespace fs = std::filesystem;
using testing::HasSubstr;

class TuneFull : public Tune {
 protected:
  static std::string backbone(const fs::path& model) {
    return base::read_text_file(model / "model.safetensors");
  }
  static nlohmann::json all(nlohmann::json changes = nlohmann::json::object()) {
    changes["train"] = changes.value("train", nlohmann::json("all"));
    changes["optimizer"]["clip"] = "global";
    return changes;
  }
  void configure(const nlohmann::json& changes) const { write("tune.json", config_with(changes).dump(2)); }

  std::vector<nlohmann::json> losses() const {
    std::vector<nlohmann::json> rows;
    for (const auto& row : metrics())
      if (row.contains("loss")) rows.push_back(row.at("loss"));
    return rows;
  }

  // A run that is stopped ends with the bits of one that is not.
  void expect_resume_is_exact(const nlohmann::json& changes) {
    configure(changes);
    const auto exits = uninterrupted_weights(), trained = backbone(folder_ / "reference");
    auto process = start({"--resume", "auto"});
    ASSERT_TRUE(process->wait_for("step 15/60")) << process->output();
    process->signal(SIGTERM);
    EXPECT_EQ(process->wait().exit_code, 143);
    ASSERT_FALSE(fs::exists(folder_ / "out"));
    const auto finished = run({"--resume", "auto"});
    ASSERT_EQ(finished.exit_code, 0) << finished.output;
    EXPECT_THAT(finished.output, HasSubstr("resumed at step"));
    EXPECT_EQ(weights(folder_ / "out"), exits);
    EXPECT_EQ(backbone(folder_ / "out"), trained);
  }
};

TEST_F(TuneFull, WritesAModelWithATrainedBackbone) {
  configure(all());
  const auto finished = run();
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_NE(backbone(folder_ / "out"), backbone(folder_ / "model"));
  const auto rows = losses();
  for (const char* name : {"2", "4", "final"})
    EXPECT_LT(rows.back().at(name).get<double>(), rows.front().at(name).get<double>() - 1) << name;
  test::Process verify(EE_BIN_DIR "/ee-convert", {"verify", (folder_ / "out").string()},
                       folder_ / "verify.log");
  const auto verified = verify.wait();
  EXPECT_EQ(verified.exit_code, 0) << verified.output;
  // It can be trained on.
  configure(all({{"model", {{"path", (folder_ / "out").string()}}},
                 {"output", (folder_ / "again").string()},
                 {"steps", 2}}));
  EXPECT_EQ(run().exit_code, 0);
}

TEST_F(TuneFull, ResumesWithTheSameBits) { expect_resume_is_exact(all()); }

TEST_F(TuneFull, ResumesTurnsWithTheSameBits) {
  expect_resume_is_exact(all({{"train", {{"hift", {{"groups", 4}, {"order", "random"}}}}}}));
}

TEST_F(TuneFull, ComputesInBf16OnFloat32Masters) {
  configure(all({{"model", {{"precision", "bf16"}}}}));
  const auto finished = run();
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  const auto rows = losses();
  for (const char* name : {"2", "4", "final"})
    EXPECT_LT(rows.back().at(name).get<double>(), rows.front().at(name).get<double>() - 1) << name;
}

// The learning rate moves on when every group had its turn.
TEST_F(TuneFull, TurnsDelayTheLearningRate) {
  configure(all({{"train", {{"hift", {{"groups", 4}}}}}, {"steps", 16}, {"logging", {{"every_steps", 1}}}}));
  ASSERT_EQ(run().exit_code, 0);
  std::vector<double> rates;
  for (const auto& row : metrics())
    if (row.contains("learning_rate")) rates.push_back(row.at("learning_rate"));
  ASSERT_EQ(rates.size(), 16u);
  for (size_t i = 0; i < rates.size(); ++i) EXPECT_EQ(rates[i], rates[i / 4 * 4]) << i;
  for (size_t i = 4; i < rates.size(); i += 4) EXPECT_LT(rates[i], rates[i - 1]) << i;
}

TEST_F(TuneFull, ContradictionsAreRefused) {
  const auto refuses = [&](const nlohmann::json& changes, const char* message) {
    configure(changes);
    const auto finished = run();
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, HasSubstr(message));
  };
  refuses({{"train", "everything"}}, "train.mode: \"everything\" is unknown; expected one of exits, all");
  refuses({{"train", {{"mode", "exits"}, {"hift", {{"groups", 2}}}}}}, "train.mode is exits; remove one");
  refuses({{"train", {{"hift", {{"groups", 2}}}}}, {"parallel", {{"pipeline", 2}}}}, "stages would idle");
  refuses({{"train", {{"hift", {{"groups", 9}}}}}},
          "the embedding, 6 layers and the head make only 8 groups");
  refuses({{"train", {{"final_weight", 0.5}}}}, "trained only with train.mode all");
}

}  // namespace ee
