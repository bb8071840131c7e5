#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "bpe_model.h"
#include "byte_alphabet.h"
#include "ee/base/file.h"
#include "ee/tokenizer/tokenizer.h"
#include "tokenizer/golden_helper.h"
#include "tokenizer/temporary_folder.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

using nlohmann::json;

// Random characters of all planes, with the ASCII, white space and combining ones that splitting is about
// more often.
std::string random_text(std::mt19937& random, std::size_t characters) {
  constexpr std::pair<uint32_t, uint32_t> kRanges[] = {
      {0x20, 0x7E},     {0x09, 0x0D},     {0x20, 0x20},       {0x41, 0x7A},
      {0x30, 0x39},     {0x00, 0xFF},     {0x300, 0x36F},     {0x400, 0x5FF},
      {0x2000, 0x206F}, {0x4E00, 0x9FFF}, {0x1F300, 0x1FAFF}, {0xE000, 0x10FFFF}};
  std::string text;
  for (std::size_t i = 0; i < characters; ++i) {
    const auto [low, high] = kRanges[random() % std::size(kRanges)];
    append_utf8(low + static_cast<uint32_t>(random()) % (high - low + 1), text);
  }
  return text;
}

// Byte-pair encoding as its definition says: join the pair of least rank everywhere it stands, leftmost
// first.
std::vector<std::string> naive_bpe(std::vector<std::string> parts,
                                   const std::vector<std::pair<std::string, std::string>>& merges) {
  while (true) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto rank = static_cast<std::size_t>(
          std::find(merges.begin(), merges.end(), std::pair(parts[i], parts[i + 1])) - merges.begin());
      if (rank < best) best = rank, at = i;
    }
    if (best == merges.size()) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

json small_tokenizer() {
  return json::parse(R"({
    "added_tokens": [{"id": 5, "content": "<s>", "special": true, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "post_processor": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "Ġ": 4, "abc": 6},
              "merges": ["a b", ["ab", "c"]]}})");
}

std::unique_ptr<Tokenizer> load(const json& description, const json& config = json::object()) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", description.dump());
  folder.write("tokenizer_config.json", config.dump());
  return Tokenizer::load(folder.path());
}

std::string error_of(const json& description, const json& config = json::object()) {
  try {
    load(description, config);
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST(ByteAlphabet, SpellsEveryByteAndBack) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  const std::string spelling = spell_bytes(bytes);
  EXPECT_TRUE(is_valid_utf8(spelling));
  EXPECT_EQ(unspell_bytes(spelling), bytes);
  EXPECT_EQ(spell_bytes(" \n"), "\u0120\u010A");
  EXPECT_EQ(unspell_bytes("a b"), std::nullopt);  // a space is not in the alphabet
}

TEST(ByteBpe, DecodingWhatWasEncodedGivesTheText) {
  const auto tokenizer = Tokenizer::load(golden_folder("llama3"));
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const std::string text = random_text(random, random() % 200);
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(ids, true), text);
  }
}

TEST(ByteBpe, MergingEqualsTheNaiveAlgorithm) {
  const auto path = golden_folder("llama3") / "tokenizer.json";
  json model = json::parse(base::read_text_file(path)).at("model");
  model["ignore_merges"] = false;
  const BpeModel bpe(model, Alphabet::bytes, "model");
  std::vector<std::pair<std::string, std::string>> merges;
  for (const auto& merge : model.at("merges")) {
    merges.emplace_back(*unspell_bytes(merge[0].get<std::string>()),
                        *unspell_bytes(merge[1].get<std::string>()));
  }
  std::mt19937 random(3);
  BpeModel::Scratch scratch;
  for (int round = 0; round < 200; ++round) {
    std::string word;
    while (word.size() < 30) word += merges[random() % merges.size()].first;
    std::vector<std::string> bytes, joined;
    for (const char byte : word) bytes.emplace_back(1, byte);
    std::vector<int32_t> ids;
    bpe.encode(word, scratch, ids);
    for (const int32_t id : ids) joined.push_back(bpe.bytes(id));
    EXPECT_EQ(joined, naive_bpe(bytes, merges));
  }
}

TEST(ByteBpe, BrokenUtf8IsReadAsReplacementCharacters) {
  const auto tokenizer = Tokenizer::load(golden_folder("llama3"));
  EXPECT_EQ(tokenizer->encode("ab\xFFz\xE2\x82"), tokenizer->encode("ab\uFFFDz\uFFFD"));
}

TEST(ByteBpe, ThreadsGetTheSameIds) {
  const auto tokenizer = Tokenizer::load(golden_folder("qwen2"));
  const Golden golden = read_golden("qwen2");
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        for (const GoldenCase& c : golden.cases) count += tokenizer->encode(c.text) != c.ids;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

TEST(ByteBpe, ALongWordTakesLittleTime) {
  const auto tokenizer = Tokenizer::load(golden_folder("gpt2"));
  const std::string text = std::string(300'000, 'a') + std::string(300'000, ' ') + std::string(300'000, '!');
  const auto ids = tokenizer->encode(text);
  EXPECT_EQ(tokenizer->decode(ids), " " + text);  // add_prefix_space
}

// The post-processor that puts one token before the text, or behind it.
json template_with(int64_t id, bool behind) {
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json token = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  return {{"type", "TemplateProcessing"},
          {"single", behind ? json::array({text, token}) : json::array({token, text})},
          {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {id}}, {"tokens", {"<s>"}}}}}}};
}

TEST(ByteBpe, ThePostProcessorAloneSaysWhatStandsAroundAText) {
  json with_bos = small_tokenizer(), with_eos = small_tokenizer();
  with_bos["post_processor"] = template_with(5, false);
  with_eos["post_processor"] = template_with(5, true);
  EXPECT_TRUE(load(with_bos)->adds_bos());
  EXPECT_FALSE(load(with_bos)->adds_eos());
  EXPECT_EQ(load(with_bos)->bos(), 5);
  EXPECT_FALSE(load(with_eos)->adds_bos());
  EXPECT_TRUE(load(with_eos)->adds_eos());
  EXPECT_EQ(load(with_eos)->eos(), 5);
  EXPECT_EQ(load(with_eos)->encode("a"), std::vector<int64_t>{0});  // encode() adds nothing itself
  // transformers 5 drops these flags where there is a tokenizer.json.
  EXPECT_TRUE(load(with_bos, {{"add_bos_token", false}, {"bos_token", "<s>"}})->adds_bos());
  const auto flagged = load(small_tokenizer(), {{"add_bos_token", true},
                                                {"add_eos_token", true},
                                                {"bos_token", {{"content", "<s>"}}},
                                                {"eos_token", "<s>"}});
  EXPECT_FALSE(flagged->adds_bos());
  EXPECT_FALSE(flagged->adds_eos());
  EXPECT_EQ(flagged->bos(), 5);
  EXPECT_EQ(load(small_tokenizer())->bos(), std::nullopt);
}

TEST(ByteBpe, NamesThatNoVocabularyHasMatchNothing) {
  const auto tokenizer =
      load(small_tokenizer(),
           {{"eos_token", "</s>"}, {"pad_token", "ccc"}, {"additional_special_tokens", {"bb", "cab"}}});
  EXPECT_EQ(tokenizer->eos(), std::nullopt);
  EXPECT_EQ(tokenizer->token_id("bb"), std::nullopt);
  EXPECT_EQ(tokenizer->encode("bbcccab"), (std::vector<int64_t>{1, 1, 2, 2, 2, 3}));
  EXPECT_EQ(tokenizer->vocab_size(), 7);
}

TEST(ByteBpe, AnAddedTokenOfTheVocabularyHasItsIdAndTheConfigsFlags) {
  json description = small_tokenizer();
  description["added_tokens"].push_back({{"id", 9}, {"content", "ab"}, {"special", false}});
  const auto tokenizer = load(description, {{"added_tokens_decoder",
                                             {{"9", {{"content", "ab"}, {"special", true}, {"rstrip", true}}},
                                              {"7", {{"content", "<new>"}, {"special", false}}}}}});
  EXPECT_EQ(tokenizer->encode("ab  c<new>"), (std::vector<int64_t>{3, 2, 7}));
  EXPECT_EQ(tokenizer->vocab_size(), 8);
}

TEST(ByteBpe, FingerprintChangesWithWhateverChangesIds) {
  const std::string base = load(small_tokenizer())->fingerprint();
  EXPECT_EQ(load(small_tokenizer())->fingerprint(), base);
  const auto changed = [&](const char* pointer, const json& value) {
    json description = small_tokenizer();
    description[json::json_pointer(pointer)] = value;
    return load(description)->fingerprint() != base;
  };
  EXPECT_TRUE(changed("/model/merges", {"a b"}));
  EXPECT_TRUE(changed("/model/vocab/d", 7));
  EXPECT_TRUE(changed("/model/ignore_merges", true));
  EXPECT_TRUE(changed("/pre_tokenizer/add_prefix_space", true));
  EXPECT_TRUE(changed("/normalizer", {{"type", "NFC"}}));
  EXPECT_TRUE(changed("/added_tokens/0/lstrip", true));
  EXPECT_FALSE(changed("/decoder", {{"type", "ByteLevel"}}));
  EXPECT_TRUE(changed("/post_processor", template_with(5, false)));
  EXPECT_TRUE(changed("/post_processor", template_with(5, true)));
}

TEST(ByteBpe, NamesWhatIsNotSupported) {
  const auto with = [](const char* pointer, const json& value) {
    json description = small_tokenizer();
    description[json::json_pointer(pointer)] = value;
    return error_of(description);
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(with("/normalizer", {{"type", "Lowercase"}}), HasSubstr("normalizer Lowercase"));
  EXPECT_THAT(with("/normalizer", {{"type", "NFKC"}}), HasSubstr("normalizer NFKC"));
  EXPECT_THAT(with("/pre_tokenizer", {{"type", "Whitespace"}}), HasSubstr("pre-tokenizer Whitespace"));
  EXPECT_THAT(with("/pre_tokenizer", nullptr), HasSubstr("there is no decoder"));
  EXPECT_THAT(with("/pre_tokenizer",
                   {{"type", "Split"}, {"pattern", {{"Regex", "[a&&b]"}}}, {"behavior", "Isolated"}}),
              HasSubstr("intersection"));
  EXPECT_THAT(
      with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}}),
      HasSubstr("regular expression (a is broken"));
  EXPECT_THAT(with("/post_processor", {{"type", "RobertaProcessing"}}), HasSubstr("RobertaProcessing"));
  json twice = template_with(5, false);
  twice["single"].insert(twice["single"].begin(), twice["single"][0]);
  EXPECT_THAT(with("/post_processor", twice), HasSubstr("two tokens on one side"));
  EXPECT_THAT(with("/model/type", "WordPiece"), HasSubstr("WordPiece"));
  EXPECT_THAT(with("/model/dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(with("/model/end_of_word_suffix", "</w>"), HasSubstr("end_of_word_suffix"));
}

TEST(ByteBpe, NamesWhatIsBroken) {
  const auto with = [](const char* pointer, const json& value) {
    json description = small_tokenizer();
    description[json::json_pointer(pointer)] = value;
    return error_of(description);
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(with("/model/merges", {"a x"}), HasSubstr("merge 0 ('a' + 'x')"));
  EXPECT_THAT(with("/model/merges", {"a b", "abc"}), HasSubstr("merge 1 'abc'"));
  EXPECT_THAT(with("/model/vocab/d", -1), HasSubstr("impossible id -1"));
  EXPECT_THAT(with("/model/vocab/d", int64_t{1} << 60), HasSubstr("impossible id"));
  EXPECT_THAT(with("/model/vocab/d", 3), HasSubstr("id 3 belongs to two tokens"));
  EXPECT_THAT(with("/model/vocab/d", "three"), HasSubstr("tokenizer.json is not as"));
  EXPECT_THAT(with("/model/vocab", json::object()), HasSubstr("model.vocab"));
  EXPECT_THAT(with("/model/unk_token", "?"), HasSubstr("unk_token ?"));
  EXPECT_THAT(with("/added_tokens/0/id", 2'000'000'000), HasSubstr("2000000000"));
  EXPECT_THAT(with("/added_tokens/0/id", 2), HasSubstr("added token '<s>' has id 2, which is 'c'"));
  json without_model = small_tokenizer();
  without_model.erase("model");
  EXPECT_THAT(error_of(without_model), HasSubstr("model"));
}

TEST(TokenizerLoad, SaysWhichFileIsMissingOrBroken) {
  const TemporaryFolder folder;
  const auto error = [&]() -> std::string {
    try {
      Tokenizer::load(folder.path());
    } catch (const base::UserError& e) {
      return e.what();
    }
    return "no error";
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(error(), HasSubstr("expected tokenizer.json or tokenizer.model"));
  folder.write("tokenizer.model", "not a model");
  EXPECT_THAT(error(), HasSubstr("is not a SentencePiece model"));
  folder.write("tokenizer.json", "{\"model\": ");
  EXPECT_THAT(error(), HasSubstr("tokenizer.json is not JSON"));
  folder.write("tokenizer.json", small_tokenizer().dump());
  EXPECT_EQ(error(), "no error");
  folder.write("tokenizer_config.json", "[]");
  EXPECT_THAT(error(), HasSubstr("tokenizer_config.json: expected a JSON object"));
}

}  // namespace ee::tokenizer
