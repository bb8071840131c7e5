// A model that allows a million positions costs what its text takes, in every command.
#include "ee/checkpoint/attach.h"
#include "programs/tune_fixture.h"

namespace ee {
namespace fs = std::filesystem;

constexpr int64_t kShort = 512, kLong = 1'000'000;
constexpr double kMore = 24 << 20;  // the tables of all positions would take 244 MiB each for cos and sin

class LongPositions : public Tune {
 protected:
  void SetUp() override {
    Tune::SetUp();
    config::ModelConfig config = test::tiny_config();
    config.head_dim = 64;
    config.layers = 3;
    for (const int64_t positions : {kShort, kLong}) {
      config.max_positions = positions;
      test::write_model(folder_ / fmt::format("{}", positions), config);
    }
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string model(int64_t positions, const std::string& suffix = "") const {
    return path(fmt::format("{}{}", positions, suffix));
  }

  // The output of a program, and how much memory it took at most (the kernel's VmHWM of the child alone).
  std::pair<std::string, double> measured(const std::string& program, const std::vector<std::string>& args) {
    std::string command = fmt::format("{}/{}", EE_BIN_DIR, program);
    for (const std::string& arg : args) command += fmt::format(" '{}'", arg);
    // A shell that execs keeps the peak of what it was: it is small.
    write("peak.py",
          "import resource, subprocess, sys\n"
          "r = subprocess.run(sys.argv[1:]); print('PEAK', "
          "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
          "sys.exit(r.returncode)\n");
    const auto finished =
        test::Process("/bin/sh", {"-c", fmt::format("exec python3 {} {}", path("peak.py"), command)},
                      folder_ / "measured.log")
            .wait();
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    const size_t at = finished.output.rfind("PEAK ");
    EXPECT_NE(at, std::string::npos) << finished.output;
    return {finished.output.substr(0, at), 1024.0 * std::stod(finished.output.substr(at + 5))};
  }

  // The same command on both models: `args` names the model; returns what each of them printed.
  template <typename Args>
  std::pair<std::string, std::string> compare(const std::string& program, const Args& args) {
    const auto [few, small] = measured(program, args(kShort));
    const auto [many, large] = measured(program, args(kLong));
    EXPECT_LT(large, small + kMore) << program;
    return {few, many};
  }
};

TEST_F(LongPositions, GeneratingAndScoring) {
  const auto [few, many] = compare("ee-infer", [&](int64_t positions) -> std::vector<std::string> {
    return {"--model", model(positions), "--prompt", "hello", "--max-new-tokens", "20", "--threads", "1"};
  });
  EXPECT_EQ(few, many);
  write("lines.jsonl", "{\"text\": \"how far is it\"}\n");
  compare("ee-infer", [&](int64_t positions) -> std::vector<std::string> {
    return {"score",
            "--model",
            model(positions),
            "--input",
            path("lines.jsonl"),
            "--output",
            model(positions, ".scores"),
            "--threads",
            "1"};
  });
  EXPECT_EQ(base::read_text_file(model(kShort, ".scores")), base::read_text_file(model(kLong, ".scores")));
}

TEST_F(LongPositions, AttachingVerifyingPlacingAndTuning) {
  compare("ee-convert", [&](int64_t positions) -> std::vector<std::string> {
    return {"attach",
            "--model",
            model(positions),
            "--exit-layers",
            "auto:1",
            "--kind",
            "linear",
            "--fit",
            path("text.txt"),
            "--fit-tokens",
            "4096",
            "--output",
            model(positions, ".exits")};
  });
  const auto [few, many] = compare("ee-convert", [&](int64_t positions) -> std::vector<std::string> {
    return {"verify", model(positions, ".exits")};
  });
  EXPECT_EQ(few, many);
  compare("ee-tune", [&](int64_t positions) -> std::vector<std::string> {
    write("tune.json", config_with({{"model", {{"path", model(positions, ".exits")}}},
                                    {"output", model(positions, ".out")},
                                    {"steps", 2}})
                           .dump(2));
    return {"--config", path("tune.json")};
  });
  EXPECT_EQ(weights(model(kShort, ".out")), weights(model(kLong, ".out")));
}

}  // namespace ee
