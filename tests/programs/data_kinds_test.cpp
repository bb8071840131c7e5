// What people bring as data, through the programs: kinds of files, byte order marks, models without
// tokenizers.
#include <gmock/gmock.h>
#include <zlib.h>

#include "tune_fixture.h"

namespace ee {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kByteOrderMark = "\xEF\xBB\xBF";

struct DataKinds : Tune {
  void train_on(const fs::path& data, const nlohmann::json& changes = {}) const {
    auto config = config_with({{"steps", 3}, {"data", {{"train", {data.string()}}}}});
    config["checkpoint"]["every_steps"] = 0;
    if (!changes.is_null()) config.merge_patch(changes);
    write("tune.json", config.dump(2));
  }
  std::string trained_on(const fs::path& data) const {
    train_on(data);
    for (const char* name : {"out", "out.checkpoints", "out.logs"}) fs::remove_all(folder_ / name);
    const auto finished = run();
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    output_ = finished.output;
    return weights(folder_ / "out");
  }
  fs::path write_gz(const std::string& name, const std::string& text) const {
    const fs::path path = folder_ / name;
    gzFile file = ::gzopen(path.c_str(), "wb");
    EXPECT_EQ(::gzwrite(file, text.data(), static_cast<unsigned>(text.size())),
              static_cast<int>(text.size()));
    ::gzclose(file);
    return path;
  }
  void remove_tokenizer() const {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) fs::remove(folder_ / "model" / name);
  }
  test::Finished program(const char* name, std::vector<std::string> args) const {
    return test::Process(fs::path(EE_BIN_DIR) / name, args, folder_ / "program.log").wait();
  }
  // Records of the sample text's words, 40 to a record.
  static std::vector<std::string> texts() {
    std::vector<std::string> found;
    const std::string all = sample_text();
    for (size_t at = 0; at < all.size(); at += 240) found.push_back(all.substr(at, 240));
    return found;
  }
  static std::string lines(const nlohmann::json& records) {
    std::string text;
    for (const auto& record : records) text += record.dump() + "\n";
    return text;
  }
  // The byte tokenizer's ids of the same texts.
  static nlohmann::json token_records() {
    nlohmann::json records;
    for (const std::string& text : texts()) {
      nlohmann::json ids = nlohmann::json::array();
      for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
      records.push_back({{"tokens", ids}});
    }
    return records;
  }
  static nlohmann::json text_records() {
    nlohmann::json records;
    for (const std::string& text : texts()) records.push_back({{"text", text}});
    return records;
  }

  mutable std::string output_;
};

TEST_F(DataKinds, APackedListTrainsAsTheSameRecordsOnLines) {
  const std::string expected = trained_on(write("a.jsonl", lines(text_records())));
  nlohmann::json records = text_records();
  records.push_back({{"text", nullptr}});
  EXPECT_EQ(trained_on(write_gz("b.JSON.gz", kByteOrderMark + records.dump(2))), expected);
  EXPECT_THAT(output_, HasSubstr("warning: 1 of"));
  EXPECT_THAT(output_, HasSubstr("documents are empty and left out"));
}

TEST_F(DataKinds, AFolderWithATableIsRefusedBeforeAnythingIsWritten) {
  fs::create_directories(folder_ / "set");
  write("set/README.md", sample_text());
  write("set/train.parquet", "PAR1");
  train_on(folder_ / "set");
  const auto finished = run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr("train.parquet is not read: it is a table"));
  for (const char* name : {"out", "out.cache", "out.checkpoints", "out.logs"})
    EXPECT_FALSE(fs::exists(folder_ / name)) << name;
}

TEST_F(DataKinds, AModelWithoutTokenizerIsTunedAndMeasuredOnIds) {
  const std::string text = trained_on(write("a.jsonl", lines(text_records())));
  remove_tokenizer();
  const auto ids = write("ids.jsonl", lines(token_records()));
  EXPECT_EQ(trained_on(ids), text);
  const std::string out = (folder_ / "out").string();
  const auto verified = program("ee-convert", {"verify", out});
  EXPECT_EQ(verified.exit_code, 0) << verified.output;
  EXPECT_THAT(verified.output, HasSubstr("tokenizer: none"));
  const auto evaluated = program(
      "ee-infer", {"eval", "--model", out, "--data", ids.string(), "--sequence-length", "32", "--json"});
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
  const auto calibrated =
      program("ee-tune", {"calibrate", "--model", out, "--data", ids.string(), "--sequence-length", "32",
                          "--agreement", "0.5", "--confidence", "0.5"});
  EXPECT_EQ(calibrated.exit_code, 0) << calibrated.output;
}

TEST_F(DataKinds, TextForAModelWithoutTokenizerNamesTheMissingFiles) {
  remove_tokenizer();
  const auto text = write("text.jsonl", lines(text_records()));
  const auto fails = [&] {
    const auto finished = run();
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output,
                AllOf(HasSubstr("text.jsonl:1: this is text, but " + (folder_ / "model").string()),
                      HasSubstr("neither tokenizer.json nor tokenizer.model")));
    EXPECT_FALSE(fs::exists(folder_ / "out"));
  };
  train_on(text);
  fails();
  train_on(write("ids.jsonl", lines(token_records())), {{"data", {{"validation", {text.string()}}}}});
  fails();
}

// What an answer says of its prompt, without the times.
std::string gist(const std::string& output) {
  const auto answer = nlohmann::json::parse(output, nullptr, false);
  return answer.is_object() ? answer.at("prompt_tokens").dump() + answer.at("text").dump() : output;
}

TEST_F(DataKinds, EndsOfLinesAndByteOrderMarksOfPromptsAreNoPartOfThem) {
  const auto answer_to = [&](const std::vector<std::string>& prompt) {
    std::vector<std::string> args = {"--model", (folder_ / "plain").string(), "--threads", "1",
                                     "--json",  "--max-new-tokens",           "8"};
    args.insert(args.end(), prompt.begin(), prompt.end());
    const auto finished = program("ee-infer", args);
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    return gist(finished.output);
  };
  const auto of_file = [&](const fs::path& file) { return answer_to({"--prompt-file", file.string()}); };
  const std::string expected = answer_to({"--prompt", "early exit"});
  for (const char* text : {"early exit", "early exit\n", "early exit\r\n",
                           "\xEF\xBB\xBF"
                           "early exit\r\n"})
    EXPECT_EQ(of_file(write("prompt.txt", text)), expected) << testing::PrintToString(text);
  EXPECT_EQ(of_file(write_gz("prompt.txt.gz", "early exit\n")), expected);
  EXPECT_NE(of_file(write("prompt.txt", "early exit\r\n\r\n")), expected) << "one line end only";
  const std::string shell =
      fmt::format(R"(printf '\357\273\277early exit\r\n' | {}/ee-infer --model {} --threads 1 )"
                  R"(--json --max-new-tokens 8)",
                  EE_BIN_DIR, (folder_ / "plain").string());
  const auto piped = test::Process("/bin/sh", {"-c", shell}, folder_ / "program.log").wait();
  EXPECT_EQ(gist(piped.output), expected);
}

TEST_F(DataKinds, ScoreReadsAListAndPackedLinesAsLines) {
  const auto scores = [&](const fs::path& input) {
    const auto out = folder_ / (input.filename().string() + ".out");
    const auto finished = program("ee-infer", {"score", "--model", (folder_ / "model").string(), "--input",
                                               input.string(), "--output", out.string()});
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    return finished.exit_code == 0 ? base::read_text_file(out) : "";
  };
  const std::string expected = scores(write("a.jsonl", "{\"tokens\":[1,2,3]}\n{\"text\":\"ab\"}\n"));
  EXPECT_EQ(scores(write("b.json", "[{\"tokens\":[1,2,3]},\n{\"text\":\"ab\"}]")), expected);
  EXPECT_EQ(scores(write_gz("c.jsonl.gz", "{\"tokens\":[1,2,3]}\r\n{\"text\":\"ab\"}\r\n")), expected);
  const auto finished =
      program("ee-infer", {"score", "--model", (folder_ / "model").string(), "--input",
                           write("d.txt", "ab").string(), "--output", (folder_ / "d").string()});
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr("d.txt is text; expected records"));
}

}  // namespace ee
