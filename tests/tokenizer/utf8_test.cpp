#include "utf8.h"

#include <gtest/gtest.h>

#include "ee/tokenizer/tokenizer.h"

namespace ee::tokenizer {

TEST(RepairUtf8, ReplacesEachMaximalSubpartOnce) {
  const std::pair<std::string, std::string> cases[] = {
      {"plain", "plain"},
      {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"},
      {"a\xFFz", "a\uFFFDz"},
      {"\xE2\x82", "\uFFFD"},                            // the euro sign without its last byte
      {"\xE2\x82z", "\uFFFDz"},                          // the same, followed by something
      {"\xC0\xAF", "\uFFFD\uFFFD"},                      // overlong
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},            // a surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // above U+10FFFF
      {"\xF0\x9F\x98\xF0\x9F\x98\x80", "\uFFFD\xF0\x9F\x98\x80"},
      {std::string("\0", 1), std::string("\0", 1)},
  };
  for (const auto& [broken, repaired] : cases) {
    EXPECT_EQ(repair_utf8(broken), repaired);
    EXPECT_EQ(is_valid_utf8(broken), broken == repaired);
  }
}

TEST(Utf8Stream, GivesOnlyWholeCharacters) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80z"), "\xF0\x9F\x98\x80z");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, MarksWhatNeverBecomesACharacter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xFF\xE2"), "\uFFFD");
  EXPECT_EQ(stream.push("x\xE2\x82"), "\uFFFDx");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.push("again"), "again");
}

TEST(Utf8Stream, ByteByByteEqualsRepairingTheWhole) {
  const std::string text = "h\u00E9 \u20AC \xF0\x9F\x98\x80 \xE2\x28\xA1 \xF0\x90 end\xC3";
  Utf8Stream stream;
  std::string streamed;
  for (const char byte : text) streamed += stream.push(std::string_view(&byte, 1));
  streamed += stream.finish();
  EXPECT_EQ(streamed, repair_utf8(text));
}

}  // namespace ee::tokenizer
