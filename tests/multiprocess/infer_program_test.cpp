// ee-infer as several processes, started as a user would.
#include <cstdlib>
#include <thread>

#include "ee/base/temporary_failure.h"
#include "ee/comm/spawn.h"
#include "programs/infer_fixture.h"

namespace ee {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Args = std::vector<std::string>;

class InferRanks : public Infer {
 protected:
  InferRanks() { ::setenv("EE_COMM_STRICT", "1", 1); }

  static Args join(Args args, const Args& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  // All that does not depend on time and rounding.
  static nlohmann::json gist(const nlohmann::json& generation) {
    nlohmann::json gist = {generation.at("text"), generation.at("finish"),
                           generation.at("totals").at("exits")};
    for (const auto& token : generation.at("tokens")) {
      gist.push_back({token.at("id"), token.at("exit")});
    }
    return gist;
  }

  // The ranks of a launcher, each with an output of its own.
  static std::vector<std::unique_ptr<test::Process>> launch(int size, const Args& args) {
    std::vector<std::unique_ptr<test::Process>> ranks;
    const int port = comm::free_port();
    for (int rank = 0; rank < size; ++rank) {
      ranks.push_back(std::make_unique<test::Process>(EE_BIN_DIR "/ee-infer", args,
                                                      root_ / fmt::format("rank-{}.log", rank),
                                                      test::torchrun_variables(rank, size, port)));
    }
    return ranks;
  }
};

const Args kGreedy = {"--prompt", "Hello", "--threshold", "0.5", "--max-new-tokens", "24"};

TEST_F(InferRanks, JsonIsThatOfOneProcess) {
  const auto expected = gist(run_json(kGreedy));
  for (const Args& grid : {Args{"--spawn", "2", "--tensor", "2"}, Args{"--spawn=2", "--pipeline", "2"},
                           Args{"--spawn", "4", "--tensor", "2", "--pipeline", "2"}}) {
    EXPECT_EQ(gist(run_json(join(kGreedy, grid))), expected) << nlohmann::json(grid);
  }
}

// At threshold 0.5 the first stage finds them, at 1 the last one.
TEST_F(InferRanks, NumbersThatAreNoneEndAllRanksAsOneProcess) {
  for (const char* threshold : {"0.5", "1"}) {
    const Args args = {"--prompt", "Hello", "--threshold", threshold, "--max-new-tokens", "24"};
    const auto whole = run_json(args)["tokens"];
    const size_t last = first_new_token(whole);
    write_broken_model(whole[last]["id"]);
    const auto ends = [&](const Args& grid) {
      const auto finished = run(join(join(args, grid), {"--json"}), "broken");
      EXPECT_EQ(finished.exit_code, 2) << finished.output;
      EXPECT_THAT(finished.output, HasSubstr("ee-convert verify")) << nlohmann::json(grid);
      return gist(nlohmann::json::parse(finished.output.substr(0, finished.output.find('\n'))));
    };
    const auto expected = ends({});
    EXPECT_EQ(expected[1], "error");
    for (const Args& grid :
         {Args{"--spawn", "2", "--tensor", "2"}, Args{"--spawn=2", "--pipeline", "2"},
          Args{"--spawn=3", "--pipeline", "3"}, Args{"--spawn", "4", "--tensor", "2", "--pipeline", "2"}}) {
      EXPECT_EQ(ends(grid), expected) << nlohmann::json(grid);
    }
  }
}

TEST_F(InferRanks, ProbeOfTensorRanksIsThatOfOneProcess) {
  const auto probe = [](const nlohmann::json& json) { return json["tokens"][2]["exits"][1]["id"]; };
  const Args probed = {"--prompt", "Hello", "--probe", "--max-new-tokens", "3"};
  EXPECT_EQ(probe(run_json(join(probed, {"--spawn", "2", "--tensor", "2"}))), probe(run_json(probed)));
}

TEST_F(InferRanks, RankZeroReadsStandardInputForAll) {
  const auto expected = gist(run_json(kGreedy));
  const auto finished =
      run_with_input("Hello", "--json --threshold 0.5 --max-new-tokens 24 --spawn 2 --pipeline 2");
  EXPECT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_EQ(gist(nlohmann::json::parse(finished.output)), expected);
}

TEST_F(InferRanks, OnlyRankZeroOfALauncherPrints) {
  const Args args = join(kGreedy, {"--model", path("model"), "--threads", "1", "--show-exits"});
  const auto alone = run_bare(args).output;
  const auto ranks = launch(2, join(args, {"--pipeline", "2"}));
  const auto first = ranks[0]->wait(), second = ranks[1]->wait();
  EXPECT_EQ(first.exit_code, 0);
  EXPECT_EQ(second.exit_code, 0);
  const auto without_times = [](const std::string& text) {
    return text.substr(0, text.rfind(" on average"));
  };
  EXPECT_EQ(without_times(first.output), without_times(alone));
  EXPECT_EQ(second.output, "");
}

TEST_F(InferRanks, OneRankSpeaksOfAMistakeAndAllEndWithExitCodeTwo) {
  const std::vector<std::pair<Args, std::string>> mistakes = {
      {{"--prompt", "x", "--pipeline", "3"}, "--tensor 1 x --pipeline 3 are 3 processes, but 2 are running"},
      {{"--prompt", "x", "--pipeline", "2", "--probe"}, "leave --pipeline out"},
      {{"--prompt", "x", "--pipeline", "2", "--exits", "3"}, "no exit at layer 3"},
      {{"--prompt", "", "--pipeline", "2"}, "the prompt is empty"},
      {{"--prompt", "x", "--tensor", "2", "--max-new-tokens", "500"}, "context of 128"},
      {{"--prompt-file", path("absent.txt"), "--pipeline", "2"}, "absent.txt"},
      {{"score", "--input", "x", "--output", "y"}, "ee-infer score runs in one process"},
      {{"eval", "--data", "x"}, "ee-infer eval runs in one process"},
  };
  for (const auto& [args, words] : mistakes) {
    const auto ranks = launch(2, join(args, {"--model", path("model"), "--threads", "1"}));
    const auto first = ranks[0]->wait(), second = ranks[1]->wait();
    EXPECT_EQ(first.exit_code, 2) << first.output;
    EXPECT_EQ(second.exit_code, 2) << second.output;
    EXPECT_THAT(first.output, HasSubstr(words));
    EXPECT_EQ(second.output, "");
  }
}

TEST_F(InferRanks, SizesThatDoNotFitTheModelAreRefused) {
  expect_refused({"--prompt", "x", "--spawn", "7", "--pipeline", "7"}, "use at most 6 stages");
  expect_refused({"--prompt", "x", "--spawn", "3", "--tensor", "3"}, "tensor size 3 does not divide");
  expect_refused({"--prompt", "x", "--spawn", "2"}, "are 1 processes, but 2 are running");
  expect_refused({"--prompt", "x", "--tensor", "2"}, "are 2 processes, but 1 is running");
  expect_refused({"--prompt", "x", "--tensor", "0"}, "--tensor is 0");
  expect_refused({"--prompt", "x", "--spawn", "0"}, "--spawn");
}

TEST_F(InferRanks, RankThatIsKilledEndsTheOthers) {
  // A model that can go on for minutes.
  fs::copy(root_ / "model", root_ / "long", fs::copy_options::recursive);
  auto config = nlohmann::json::parse(base::read_text_file(root_ / "long/config.json"));
  config["max_position_embeddings"] = 60'000;
  fs::remove(root_ / "long/config.json");
  std::ofstream(root_ / "long/config.json") << config;
  const Args args = {"--prompt",    "Hello", "--threads",     "1",   "--model",          path("long"),
                     "--threshold", "0.5",   "--temperature", "0.7", "--max-new-tokens", "59000"};
  for (const Args& grid : {Args{"--pipeline", "2"}, Args{"--tensor", "2"}}) {
    for (const size_t lost : {0, 1}) {
      const auto ranks = launch(2, join(args, grid));
      while (ranks[0]->output().empty()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      ranks[lost]->signal(SIGKILL);
      const auto other = ranks[1 - lost]->wait();
      EXPECT_EQ(other.exit_code, base::kExitTemporaryFailure) << other.output;
      EXPECT_THAT(other.output, HasSubstr(fmt::format("rank {} was lost", lost)));
    }
  }
}

}  // namespace
}  // namespace ee
