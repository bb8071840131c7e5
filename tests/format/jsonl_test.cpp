#include "ee/format/jsonl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "temp_folder.h"

namespace ee::format {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

TEST(JsonlWriter, AppendsAndEachLineIsThereAtOnce) {
  const TempFolder folder;
  const auto path = folder / "log.jsonl";
  JsonlWriter first(path);
  first.write({{"step", 1}});
  EXPECT_EQ(base::read_text_file(path), "{\"step\":1}\n");
  JsonlWriter second(path);
  second.write({{"loss", std::numeric_limits<double>::quiet_NaN()}, {"text", "a\nb\xff"}});
  EXPECT_EQ(base::read_text_file(path), "{\"step\":1}\n{\"loss\":null,\"text\":\"a\\nb\xef\xbf\xbd\"}\n");
}

TEST(JsonlWriter, KeepsApartFromHalfALineOfAKilledRun) {
  const TempFolder folder;
  const auto path = folder / "log.jsonl";
  base::write_file_atomically(path, "{\"step\":1}\n{\"st");
  JsonlWriter(path).write({{"step", 2}});
  EXPECT_EQ(base::read_text_file(path), "{\"step\":1}\n{\"st\n{\"step\":2}\n");
}

TEST(JsonlWriter, NamesTheFileWhenTheDiskRefuses) {
  const TempFolder folder;
  EXPECT_THROW(JsonlWriter(folder / "absent" / std::string("log").c_str()), base::UserError);
  try {
    JsonlWriter("/dev/full").write(Json::object());
    FAIL();
  } catch (const base::UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("cannot write /dev/full"));
  }
}

}  // namespace
}  // namespace ee::format
