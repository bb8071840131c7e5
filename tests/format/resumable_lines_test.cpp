#include "ee/format/resumable_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "temp_folder.h"

namespace ee::format {
namespace fs = std::filesystem;
using base::UserError;
using testing::HasSubstr;
using testing::ThrowsMessage;

struct Resumable : testing::Test {
  TempFolder folder;
  fs::path output = folder / "out.jsonl", part = folder / "out.jsonl.part";
  nlohmann::json maker = {{"seed", 1}, {"model", "a"}};
};

TEST_F(Resumable, OutputAppearsAtTheEndOnly) {
  ResumableLines lines(output, maker);
  lines.write({{"i", 0}});
  lines.write({{"i", 1}});
  EXPECT_EQ(lines.lines(), 2);
  EXPECT_FALSE(fs::exists(output));
  lines.finish();
  EXPECT_EQ(base::read_text_file(output), "{\"i\":0}\n{\"i\":1}\n");
  EXPECT_FALSE(fs::exists(part));
}

TEST_F(Resumable, AnInterruptedRunGoesOnBehindItsLastWholeLine) {
  for (const std::string torn : {"", "{\"i\":", "{\"i\":1}"}) {
    fs::remove(output);
    ResumableLines(output, maker).write({{"i", 0}});
    std::ofstream(part, std::ios::app) << torn;
    ResumableLines again(output, maker);
    EXPECT_EQ(again.lines(), 1) << torn;
    again.write({{"i", 1}});
    again.finish();
    EXPECT_EQ(base::read_text_file(output), "{\"i\":0}\n{\"i\":1}\n") << torn;
  }
}

TEST_F(Resumable, ATornFirstLineIsABeginning) {
  std::ofstream(part) << "{\"mod";
  ResumableLines lines(output, maker);
  EXPECT_EQ(lines.lines(), 0);
  lines.finish();
  EXPECT_EQ(base::read_text_file(output), "");
}

TEST_F(Resumable, WhatSomethingElseMadeIsRefused) {
  ResumableLines(output, maker).write({{"i", 0}});
  EXPECT_THAT(
      [&] {
        ResumableLines(output, {{"seed", 2}, {"model", "a"}});
      },
      ThrowsMessage<UserError>(HasSubstr("out.jsonl.part was begun with another model")));
  std::ofstream(output) << "here";
  EXPECT_THAT([&] { ResumableLines(output, maker); }, ThrowsMessage<UserError>(HasSubstr("exists already")));
}

}  // namespace ee::format
