#include "ee/format/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "temp_folder.h"

namespace ee::format {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Json = nlohmann::json;

struct Records : testing::Test {
  std::vector<Json> read(const std::string& text) {
    base::write_file_atomically(folder / "a.json", text);
    return read_file(folder / "a.json");
  }
  // Places are kept without the folder's name.
  std::vector<Json> read_file(const std::filesystem::path& path) {
    places.clear();
    std::vector<Json> records;
    RecordReader reader{UnpackedFile(path)};
    for (Json record; reader.next(record);) {
      records.push_back(record);
      places.push_back(reader.where().substr(path.string().size()));
    }
    Json nothing;
    EXPECT_FALSE(reader.next(nothing)) << "the end stays the end";
    return records;
  }
  void fails(const std::string& text, const std::string& message) {
    EXPECT_THAT([&] { read(text); }, ThrowsMessage<base::UserError>(HasSubstr("a.json:" + message))) << text;
  }

  TempFolder folder;
  std::vector<std::string> places;
};

TEST_F(Records, ValuesStandBehindEachOther) {
  EXPECT_THAT(read("{\"text\":\"a\\nb\"}\n\n \t\r\n{\"b\": [1, {}]}\r\n3 null\n\"x\\\"y\""),
              ElementsAre(Json{{"text", "a\nb"}}, Json::parse(R"({"b": [1, {}]})"), 3, nullptr, "x\"y"));
  EXPECT_THAT(places, ElementsAre(":1", ":4", ":5", ":5", ":6"));
  EXPECT_THAT(read("{\n \"a\":\n 1}\n{\"a\":2}{\"a\":3}"),
              ElementsAre(Json{{"a", 1}}, Json{{"a", 2}}, Json{{"a", 3}}));
  EXPECT_THAT(places, ElementsAre(":1", ":4", ":4"));
  EXPECT_THAT(read(" \n"), ElementsAre());
}

TEST_F(Records, ElementsOfOneList) {
  EXPECT_THAT(read("\xEF\xBB\xBF [ {\"a\": \"]}[{,\\\\\"},\n\n[[]] ,null, -1.5e3\n,\"]\"\n]\n "),
              ElementsAre(Json{{"a", "]}[{,\\"}}, Json::parse("[[]]"), nullptr, -1500.0, "]"));
  EXPECT_THAT(places, ElementsAre(":1 (record 1)", ":3 (record 2)", ":3 (record 3)", ":3 (record 4)",
                                  ":4 (record 5)"));
  EXPECT_THAT(read("[]"), ElementsAre());
}

TEST_F(Records, AByteOrderMarkIsNoPartOfTheFirst) {
  EXPECT_THAT(read("\xEF\xBB\xBF{\"a\":1}\n"), ElementsAre(Json{{"a", 1}}));
  EXPECT_THAT(read("\xEF\xBB\xBF\"a\""), ElementsAre("a"));
  EXPECT_THAT(read("\xEF\xBB\xBF"), ElementsAre());
}

TEST_F(Records, WhatIsNoJsonIsNamedByItsLine) {
  fails("{}\n{'a':1}\n", "2: not valid JSON");
  fails("{}\n\"\xff\"\n", "2: not valid JSON");
  fails("{}\nnan\n", "2: not valid JSON");
  fails("{},\n{}\n", "1: not valid JSON");
  fails("{}\n}\n", "2: not valid JSON");
  fails("{}\n\n{\"a\": \"b\n{\"a\": \"c\"}", "3: not valid JSON: a text is not closed");
  fails("{}\n{\"a\": \"b\\", "2: not valid JSON: a text is not closed");
  fails("{}\n{\"a\": 1\n\n", "2: not valid JSON: the file ends inside this record");
  fails("{}\n{\"a\": ]\n}", "2: not valid JSON");
}

TEST_F(Records, WhatIsNoListIsNamedByRecordAndLine) {
  fails("[{},\n{'a':1}]", "2 (record 2): not valid JSON");
  fails("[{},\n\n]", "3 (record 2): not valid JSON");
  fails("[,{}]", "1 (record 1): not valid JSON");
  fails("[{}\n{}]", "2: not valid JSON: a comma or ] is missing behind record 1");
  fails("[{}]\n[{}]", "2: not valid JSON: there is something behind the list");
  fails("[{},\n{}\n", "3: not valid JSON: the list of records does not end");
  fails("[{},\n{\"a\":", "2 (record 2): not valid JSON: the file ends inside this record");
  fails("[", "1 (record 1): not valid JSON: the file ends");
}

// make_packed_golden.py: as Python's gzip, zstandard and json read them.
TEST_F(Records, PackedFilesGiveWhatPythonFinds) {
  const std::filesystem::path golden = EE_SOURCE_DIR "/tests/format/golden";
  const Json expected = Json::parse(base::read_text_file(golden / "packed.json"));
  for (const char* name : {"members.jsonl.gz", "frames.jsonl.zst", "list.json.gz", "list.json.zst"})
    EXPECT_EQ(Json(read_file(golden / name)), expected) << name;
}

}  // namespace
}  // namespace ee::format
