#include "ee/format/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "temp_folder.h"

namespace ee::format {
namespace {

using namespace std::string_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct Kinds : testing::Test {
  FileKind kind(const std::string& name, const std::string& bytes) const {
    base::write_file_atomically(folder / name, bytes);
    UnpackedFile file(folder / name);
    const FileKind found = find_kind(file);
    EXPECT_EQ(file.read_rest(), bytes) << "nothing is passed over";
    return found;
  }
  void refused(const std::string& name, const std::string& bytes, const char* what) const {
    EXPECT_THAT([&] { kind(name, bytes); },
                ThrowsMessage<base::UserError>(AllOf(HasSubstr(name + " is not read: it is " + what),
                                                     HasSubstr("What is read: UTF-8"))));
  }

  TempFolder folder;
};

TEST_F(Kinds, NamesSayWhichFilesHoldRecordsWithoutCase) {
  for (const char* name :
       {"a.jsonl", "a.JSONL", "a.ndjson", "a.Json", "a.jsonlines", "a.jsonl.gz", "a.JSON.ZST"})
    EXPECT_EQ(kind(name, "{\"id\": 1}"), FileKind::records) << name;
  for (const char* name :
       {"a.txt", "a.md", "a.html", "a.py", "a", "a.log", "a.txt.gz", "json", "a.b.rst", "R.JPEG.txt"})
    EXPECT_EQ(kind(name, "some text"), FileKind::text) << name;
  EXPECT_EQ(kind("empty.txt", ""), FileKind::text);
}

TEST_F(Kinds, RecordsAreRecordsUnderEveryName) {
  for (const char* bytes :
       {"{\"text\": \"a\"}\n{\"text\": \"b\"}",
        "\xEF\xBB\xBF [\n{\"id\": [1, {\"a\": {}}], \"tokens\": [1]}]",
        "{\"meta\": {\"text\": 1}, \"n\": null, \"prompt\": \"a\"}", "[{\"text\": \"cut o"})
    for (const char* name : {"part-00000", "train.txt", "b.log"})
      EXPECT_EQ(kind(name, bytes), FileKind::records) << bytes;
  for (const char* bytes :
       {"{\"a\": {\"text\": 1}} text", "{text}", "[1, {\"text\": 1}]", "[[{\"text\": 1}]]", "{}{\"text\": 1}",
        "say {\"text\": 1}", "[\"text\"]", "{\"a\": [{\"text\": 1}]}", "[text](tokens)", "{"})
    EXPECT_EQ(kind("a.md", bytes), FileKind::text) << bytes;
}

TEST_F(Kinds, WhatIsNotReadIsNamedByItsName) {
  refused("a.csv", "text\nhello\n", "a table");
  refused("a.TSV.gz", "text\nhello\n", "a table");
  refused("a.parquet", "", "a table");
  refused("a.zip", "x", "an archive");
  refused("a.pdf", "x", "a document");
  refused("a.png", "x", "not text but a picture");
  refused("a.bin", "x", "binary tokens of another program");
  refused("a.ipynb", "{}", "a notebook");
}

TEST_F(Kinds, WhatIsNotReadIsNamedByItsFirstBytes) {
  for (const char* name : {"a", "a.txt", "a.jsonl"}) {
    refused(name, "PAR1\x15\x04", "a table");
    refused(name, "ARROW1\0\0"s, "a table");
    refused(name, "PK\x03\x04", "an archive");
    refused(name, std::string(257, '\0') + "ustar", "an archive");
    refused(name,
            "\xFD"
            "7zXZ\0"s,
            "packed in a way");
    refused(name, "BZh91AY&SY\x12", "packed in a way");
    refused(name, "%PDF-1.7\n", "a document");
    refused(name, "\x89PNG\r\n\x1A\n", "not text");
    refused(name, "\xFF\xD8\xFF\xE0", "not text");
    refused(name, "MMIDIDX\0\0"s, "binary tokens");
    refused(name, "GGUF\3\0\0\0"s, "tensors");
    refused(name, "\xFF\xFEh\0i\0"s, "UTF-16");
    refused(name, "\xFE\xFF\0h\0i"s, "UTF-16");
    refused(name, "h\0i\0"s, "binary data, or text in UTF-16");
  }
  for (const char* text : {"GGUF is a format", "PAR1", "BZh is how it begins", "Obj", "GIF89"})
    EXPECT_EQ(kind("a.txt", text), FileKind::text) << text;
}

TEST_F(Kinds, WhatIsPackedTwiceIsRefused) {
  // Python: gzip.compress(gzip.compress(b"", mtime=0), mtime=0)
  const std::string twice =
      "\x1F\x8B\x08\0\0\0\0\0\x02\x03\x93\xEF\xE6`\0\x01&ff\x06\x18\0\0d\xEE\xD5*\x14\0\0\0"s;
  refused("a.jsonl.gz", twice, "packed in a way that is not read");
}

TEST_F(Kinds, TextThatIsTextInAnyCaseIsOnlyAskedForItsEncoding) {
  const auto check = [&](const std::string& name, const std::string& bytes) {
    base::write_file_atomically(folder / name, bytes);
    UnpackedFile file(folder / name);
    check_is_text(file);
  };
  EXPECT_NO_THROW(check("a.csv", "a,b\n"));
  EXPECT_NO_THROW(check("a.json", "{}"));
  EXPECT_THROW(check("a.txt", "\xFF\xFEh\0"s), base::UserError);
}

}  // namespace
}  // namespace ee::format
