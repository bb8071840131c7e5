#include "ee/data/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "data/byte_tokenizer.h"
#include "ee/data/documents.h"

namespace ee::data {
namespace fs = std::filesystem;
using base::UserError;
using testing::HasSubstr;
using testing::ThrowsMessage;

class CorpusFiles : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              fmt::format("ee-data-{}-{}", ::getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(folder_ / "text");
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, std::string_view text) {
    const fs::path path = folder_ / "text" / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  Corpus open(const std::vector<std::string>& paths, const tokenizer::Tokenizer& tokenizer, int threads = 1) {
    return open_corpus(find_text_files(paths, "data.train"), tokenizer,
                       {.cache = folder_ / "cache", .threads = threads, .progress = {}});
  }
  Corpus open_all(const tokenizer::Tokenizer& tokenizer, int threads = 1) {
    return open({(folder_ / "text").string()}, tokenizer, threads);
  }
  static std::string text_of(const Corpus& corpus, int64_t document) {
    const auto tokens = corpus.document(document);
    return {tokens.begin(), tokens.end()};
  }
  std::vector<fs::path> cache_files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_ / "cache")) files.push_back(entry.path());
    return files;
  }

  fs::path folder_;
};

TEST_F(CorpusFiles, FolderIsReadRecursivelyInOrderWithoutHiddenFiles) {
  write("b.txt", "second");
  write("a.rst", "first");
  write("c/d.md", "third");
  write(".git/config", "hidden");
  write(".hidden", "hidden");
  write("empty.txt", "");
  const auto corpus = open_all(ByteTokenizer());
  ASSERT_EQ(corpus.documents(), 3);
  EXPECT_EQ(text_of(corpus, 0), "first");
  EXPECT_EQ(text_of(corpus, 1), "second");
  EXPECT_EQ(text_of(corpus, 2), "third");
  EXPECT_EQ(corpus.tokens(), 16);
}

TEST_F(CorpusFiles, JsonlLinesAreDocuments) {
  const auto file =
      write("a.jsonl", "{\"text\": \"caf\\u00e9\"}\n\n{\"id\": 1, \"text\": \"x\\ny\"}\r\n{\"text\": \"\"}");
  const auto corpus = open({file.string()}, ByteTokenizer());
  ASSERT_EQ(corpus.documents(), 2);
  EXPECT_EQ(text_of(corpus, 0), "café");
  EXPECT_EQ(text_of(corpus, 1), "x\ny");
}

TEST_F(CorpusFiles, DocumentsBeginWithBosWhenTheTokenizerAddsOne) {
  const auto corpus = open({write("a.txt", "x").string()}, ByteTokenizer("bytes", true));
  EXPECT_THAT(corpus.document(0), testing::ElementsAre(256, 'x'));
}

TEST_F(CorpusFiles, ThreadsDoNotChangeTheCorpus) {
  std::string lines;
  for (int i = 0; i < 500; ++i)
    lines += fmt::format("{{\"text\": \"document {} {}\"}}\n", i, std::string(i, 'x'));
  write("a.jsonl", lines);
  const auto one = open_all(ByteTokenizer("bytes"), 1);
  const auto four = open_all(ByteTokenizer("again"), 4);
  EXPECT_EQ(one.documents(), 500);
  EXPECT_EQ(one.fingerprint(), four.fingerprint());
}

TEST_F(CorpusFiles, CacheIsReusedForTheSameTokenizerAndContents) {
  write("a.txt", "some text");
  ByteTokenizer tokenizer;
  open_all(tokenizer);
  EXPECT_EQ(tokenizer.calls, 1);
  const auto again = open_all(tokenizer);
  EXPECT_EQ(tokenizer.calls, 1);
  EXPECT_EQ(text_of(again, 0), "some text");
}

TEST_F(CorpusFiles, CacheIsMadeAgainWhenContentsOrTokenizerChange) {
  write("a.txt", "some text");
  ByteTokenizer tokenizer, other("other");
  open_all(tokenizer);
  write("a.txt", "some tent");
  EXPECT_EQ(text_of(open_all(tokenizer), 0), "some tent");
  EXPECT_EQ(tokenizer.calls, 2);
  open_all(other);
  EXPECT_EQ(other.calls, 1);
  EXPECT_EQ(cache_files().size(), 3u);
}

TEST_F(CorpusFiles, BrokenCacheIsMadeAgain) {
  write("a.txt", "some text");
  ByteTokenizer tokenizer;
  open_all(tokenizer);
  const auto file = cache_files().at(0);
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary).seekp(9).put('!');
  EXPECT_THAT([&] { Corpus{file}; }, ThrowsMessage<UserError>(HasSubstr("wrong checksum")));
  EXPECT_EQ(text_of(open_all(tokenizer), 0), "some text");
  EXPECT_EQ(tokenizer.calls, 2);
}

TEST_F(CorpusFiles, EveryTruncationOfACacheIsNoticed) {
  write("a.txt", "some text");
  open_all(ByteTokenizer());
  const auto file = cache_files().at(0);
  for (auto size = static_cast<int64_t>(fs::file_size(file)) - 1; size >= 0; --size) {
    fs::resize_file(file, static_cast<uintmax_t>(size));
    EXPECT_THROW(Corpus{file}, UserError) << size;
  }
}

TEST_F(CorpusFiles, FailureLeavesNoCacheBehind) {
  const auto file = write("a.jsonl", "{\"text\": \"good\"}\n{\"text\": [\"bad\"]}\n");
  EXPECT_THAT([&] { open({file.string()}, ByteTokenizer()); },
              ThrowsMessage<UserError>(HasSubstr("a.jsonl:2: \"text\" is array")));
  EXPECT_TRUE(cache_files().empty());
}

// Nobody trains on the README beside a table by mistake.
TEST_F(CorpusFiles, AFolderWithFilesThatAreNotReadIsRefusedWithAllOfThem) {
  write("README.md", "text");
  write("data/a.parquet", "PAR1");
  write("data/b.CSV", "text\nx\n");
  for (const char* name : {"c.png", "d.zip", "e.xz"}) write(name, "x");
  EXPECT_THAT([&] { open_all(ByteTokenizer()); },
              ThrowsMessage<UserError>(testing::AllOf(
                  testing::StartsWith("data.train: "), HasSubstr("c.png is not read: it is not text"),
                  HasSubstr("d.zip is not read"), HasSubstr("and 2 more files that are not read"))));
  EXPECT_FALSE(fs::exists(folder_ / "cache"));
}

TEST_F(CorpusFiles, RecordsAreDocumentsUnderEveryNameAndPackedOrNot) {
  write("a.JSONL", "\xEF\xBB\xBF{\"text\": \"1\"}\n{\"text\": \"2\"}");
  write("b.ndjson", "{\"text\": \"3\"}\r\n");
  write("c.json", "[\n {\n  \"text\": \"4\"\n },\n \"5\"]");
  write("d.txt", "{\"text\": \"6\"}\n{\"text\": \"7\"}");
  write("e.txt",
        "\xEF\xBB\xBF"
        "8\r\n");
  const auto corpus = open_all(ByteTokenizer());
  std::vector<std::string> texts;
  for (int64_t i = 0; i < corpus.documents(); ++i) texts.push_back(text_of(corpus, i));
  EXPECT_THAT(texts, testing::ElementsAre("1", "2", "3", "4", "5", "6", "7", "8\r\n"));
}

TEST_F(CorpusFiles, EmptyDocumentsAreCountedOnceForAllFilesAndLeftOut) {
  write("a.jsonl", "{\"text\": \"x\"}\n\n{\"text\": \"\"}\n{\"text\": null, \"tokens\": null}\n");
  write("b.json", R"([{"id": 1}, {"text": "y"}, null, {"tokens": []}])");
  write("c.txt", "\xEF\xBB\xBF");
  testing::internal::CaptureStderr();
  const auto corpus = open_all(ByteTokenizer());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::AllOf(HasSubstr("warning: 6 of 8 documents are empty and left out, the first is "),
                             HasSubstr("a.jsonl:3\n")));
  ASSERT_EQ(corpus.documents(), 2);
  EXPECT_EQ(text_of(corpus, 0), "x");
  EXPECT_EQ(text_of(corpus, 1), "y");
}

// As it was before a list in .json, or a byte order mark, had a meaning.
TEST_F(CorpusFiles, TheSameBytesReadInAnotherWayAreAnotherCorpus) {
  ByteTokenizer tokenizer;
  const auto records = open({write("a.json", "[{\"text\": \"x\"}]").string()}, tokenizer);
  const auto text = open({write("a.md", "say [{\"text\": \"x\"}]").string()}, tokenizer);
  EXPECT_EQ(text_of(records, 0), "x");
  EXPECT_NE(cache_files().at(0), cache_files().at(1));
  open({write("b.json", "[\"x\"]").string()}, tokenizer);
  EXPECT_EQ(text_of(open({write("b.md", "[\"x\"]").string()}, tokenizer), 0), "[\"x\"]");
  EXPECT_EQ(cache_files().size(), 4u);
}

TEST_F(CorpusFiles, ProgressIsInBytesOfTheFilesAndReachesTheirEnd) {
  std::string lines;
  for (int i = 0; i < 3; ++i) lines += fmt::format("{{\"text\": \"{}\"}}\n", std::string(12 << 20, 'x'));
  const auto file = write("a.jsonl", lines);
  std::vector<int64_t> done;
  open_corpus({file}, ByteTokenizer(), {.cache = folder_ / "cache", .progress = [&](int64_t at, int64_t of) {
                                          EXPECT_EQ(of, static_cast<int64_t>(lines.size()));
                                          done.push_back(at);
                                        }});
  EXPECT_GT(done.size(), 1u);
  EXPECT_TRUE(std::ranges::is_sorted(done));
  EXPECT_EQ(done.back(), static_cast<int64_t>(lines.size()));
}

TEST_F(CorpusFiles, BadInputIsNamed) {
  const auto fails = [&](const fs::path& path, const char* message) {
    EXPECT_THAT([&] { open({path.string()}, ByteTokenizer()); },
                ThrowsMessage<UserError>(HasSubstr(message)));
  };
  fails(folder_ / "absent", "absent is neither a file nor a folder");
  fails(write("latin.txt", "caf\xe9 au lait"), "latin.txt: not UTF-8 text: byte 0xe9 at offset 3");
  fails(write("empty.txt", ""), "no text in");
  fails(write("broken.jsonl", "{\"text\": \"a\"}\n{\"text\": "), "broken.jsonl:2: not valid JSON");
  fails(write("number.jsonl", "{\"text\": 5}"), "number.jsonl:1: \"text\" is number");
  fails(write("list.jsonl", "[1]"), "list.jsonl:1 (record 1): the record is number, expected an object");
  fails(write("cut.jsonl.gz", std::string("\x1f\x8b\x08\0", 4)), "the gzip data in it is cut off");
  fails(write("nulls.json", R"([{"text": null}, {"text": ""}, {"id": 1}, null, ""])"), "no text in");
  fails(write("other.json", R"({"b": 1, "a": "x"} {})"),
        "other.json: no record has a key \"text\" or \"tokens\"; the first one has \"a\", \"b\"");
  fs::create_directories(folder_ / "nothing");
  fails(folder_ / "nothing", "holds no files");
  EXPECT_THROW(find_text_files({}, "data.train"), UserError);
}

TEST(Utf8, AcceptsTheBordersAndRefusesWhatUnicodeForbids) {
  for (const std::string good : {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF",
                                 "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(find_invalid_utf8(good), good.size()) << testing::PrintToString(good);
  for (const std::string bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2x", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"})
    EXPECT_EQ(find_invalid_utf8(bad), 0u) << testing::PrintToString(bad);
  EXPECT_EQ(find_invalid_utf8("ok\xC2\x80\xFF"), 4u);
}

}  // namespace ee::data
