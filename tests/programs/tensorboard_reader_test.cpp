// The event files as TensorBoard's own reader sees them (scripts/setup.sh --test installs it).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "ee/format/tensorboard.h"
#include "support/process.h"

namespace ee {

TEST(TensorBoardReader, FindsEveryScalar) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(::testing::TempDir()) / fmt::format("tensorboard-{}", ::getpid());
  fs::remove_all(folder);
  fs::create_directories(folder);
  {
    format::TensorBoardWriter writer(folder);
    for (int step = 1; step <= 3; ++step) {
      writer.add_scalar("loss/10", 1.0 / step, step);
      writer.add_scalar("learning_rate", 0.25 * step, step);
    }
    writer.flush();
  }
  const test::Finished reader =
      test::Process(EE_SOURCE_DIR "/.venv/bin/python",
                    {EE_SOURCE_DIR "/tests/format/read_tensorboard.py", folder.string()},
                    folder.string() + ".log")
          .wait();
  ASSERT_EQ(reader.exit_code, 0) << reader.output;
  // Warnings of the reader's libraries may come before the JSON line.
  const auto scalars = nlohmann::json::parse(reader.output.substr(reader.output.find("{\"")));
  EXPECT_EQ(scalars["learning_rate"], nlohmann::json::parse("[[1, 0.25], [2, 0.5], [3, 0.75]]"));
  ASSERT_EQ(scalars["loss/10"].size(), 3u);
  EXPECT_NEAR(scalars["loss/10"][2][1].get<double>(), 1.0 / 3, 1e-7);
  fs::remove_all(folder);
}

}  // namespace ee
