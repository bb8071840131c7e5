#include "ee/config/exit_spec.h"

#include "ee/base/file.h"
#include "support.h"

namespace ee::config {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<ExitSpec> read(const std::string& text, int64_t layers = 30) {
  TempFolder folder;
  return read_exit_specs(folder.write("exits.json", text), layers);
}

std::string error_of(const std::string& text, int64_t layers = 30) {
  return user_error([&] { read(text, layers); });
}

TEST(ExitSpec, NamesAndValuesAreInverse) {
  for (const auto& [value, name] : enum_names(ExitKind{})) {
    EXPECT_EQ(to_string(value), name);
    EXPECT_EQ(parse_exit_kind(name), value);
  }
  EXPECT_EQ(to_string(ExitPosition::before), "before");
  EXPECT_EQ(parse_exit_position("before"), ExitPosition::before);
  EXPECT_EQ(to_string(HeadKind::own), "own");
  EXPECT_EQ(parse_head_kind("own"), HeadKind::own);
  EXPECT_EQ(to_string(NormKind::shared), "shared");
  EXPECT_EQ(parse_norm_kind("none"), NormKind::none);
  EXPECT_EQ(to_string(InitKind::random), "random");
  EXPECT_EQ(parse_init_kind("copy"), InitKind::copy);
  EXPECT_EQ(user_error([] { parse_exit_kind("mlpp"); }),
            "exit kind: \"mlpp\" is unknown; expected one of embedding, norm, mlp, linear, layer "
            "(did you mean mlp?)");
  EXPECT_THAT(user_error([] { parse_init_kind(""); }), HasSubstr("expected one of copy, random"));
}

TEST(ExitSpec, DepthCountsTheLayersInFront) {
  EXPECT_EQ((ExitSpec{.layer = 10}.depth()), 10);
  EXPECT_EQ((ExitSpec{.layer = 10, .position = ExitPosition::before}.depth()), 9);
}

TEST(ExitSpec, ReadsAFileAndSortsByLayer) {
  const auto exits = read(R"({"exits": [  // deepest first
      {"layer": 22, "kind": "layer", "head": "own", "init": "random", "weight": 0.5, "temperature": 2},
      {"layer": 10},
      {"layer": 4, "kind": "embedding", "position": "before"},
      {"layer": 5, "kind": "embedding", "norm": "shared"}]})");
  EXPECT_THAT(exits, ElementsAre(ExitSpec{.layer = 4,
                                          .kind = ExitKind::embedding,
                                          .position = ExitPosition::before,
                                          .norm = NormKind::none},
                                 ExitSpec{.layer = 5, .kind = ExitKind::embedding, .norm = NormKind::shared},
                                 ExitSpec{.layer = 10},
                                 ExitSpec{.layer = 22,
                                          .kind = ExitKind::layer,
                                          .head = HeadKind::own,
                                          .init = InitKind::random,
                                          .weight = 0.5,
                                          .temperature = 2}));
}

TEST(ExitSpec, AByteOrderMarkIsNoPartOfTheFile) {
  EXPECT_EQ(read("\xEF\xBB\xBF// comment\n{\"exits\": [{\"layer\": 10}]}"),
            read(R"({"exits": [{"layer": 10}]})"));
}

TEST(ExitSpec, ALinearExitHasATranslatorUnlessTheFileRefusesIt) {
  EXPECT_THAT(
      read(R"({"exits": [{"layer": 3, "kind": "linear"},
                                 {"layer": 4, "kind": "mlp", "translator": "low_rank", "translator_rank": 8}]})"),
      ElementsAre(ExitSpec{.layer = 3, .kind = ExitKind::linear, .translator = TranslatorKind::full},
                  ExitSpec{.layer = 4, .translator = TranslatorKind::low_rank, .translator_rank = 8}));
  EXPECT_THAT(error_of(R"({"exits": [{"layer": 3, "kind": "linear", "translator": "none"},
                                     {"layer": 4, "kind": "norm", "init": "fit"}]})"),
              AllOf(HasSubstr("exits[0].translator: a linear exit has a translator"),
                    HasSubstr("exits[1].init: there is nothing to fit in an exit of kind norm")));
}

TEST(ExitSpec, ReportsAllProblemsOfAFileAtOnce) {
  EXPECT_THAT(
      error_of(R"({"exits": [{"layer": 31}, {"kind": "mlpp", "layr": 3}, {"layer": 5, "wieght": 1},
                 {"layer": 5, "position": "before"}, {"layer": 6, "temperature": 0, "weight": -1}, 7,
                 {"layer": 7, "kind": "norm", "norm": "none"}, {"layer": 0}, {"layer": "8"}], "exit": []})"),
      AllOf(
          HasSubstr("exits.json: 14 problems"),
          HasSubstr("exits[0].layer: 31 is out of range; the model has layers 1 to 30"),
          HasSubstr("exits[1].kind: \"mlpp\" is unknown; expected one of embedding, norm, mlp, linear, layer "
                    "(did you mean mlp?)"),
          HasSubstr("exits[1].layr: unknown key (did you mean layer?)"),
          HasSubstr("exits[1].layer: required, but missing"),
          HasSubstr("exits[2].wieght: unknown key (did you mean weight?)"),
          HasSubstr("exits[3].layer: layer 5 has an exit already, exits[2]"),
          HasSubstr("exits[3].position: an mlp exit is always after its layer"),
          HasSubstr("exits[4].temperature: must be > 0, got 0"),
          HasSubstr("exits[4].weight: must be >= 0, got -1"),
          HasSubstr("exits[5]: expected object {...}, got number 7"),
          HasSubstr("exits[6].norm: a norm exit has a norm"),
          HasSubstr("exits[7].layer: required, but missing or 0"),
          HasSubstr("exits[8].layer: expected integer, got text \"8\""), HasSubstr("exit: unknown key")));
}

TEST(ExitSpec, RefusesFilesWithoutExits) {
  EXPECT_THAT(error_of(""), HasSubstr("exits.json is empty"));
  EXPECT_THAT(error_of("exits"), HasSubstr("exits.json is not valid JSON"));
  EXPECT_THAT(error_of("{}"), HasSubstr("exits: required, but missing"));
  EXPECT_THAT(error_of(R"({"exits": 3})"), HasSubstr("exits: expected list, got number 3"));
  EXPECT_THAT(error_of(R"({"exits": []})"), HasSubstr("exits: names no exit"));
  EXPECT_THAT(error_of(R"({"exits": [{"layer": 3, "layer": 4}]})"), HasSubstr("key layer is given twice"));
  EXPECT_THAT(user_error([] { read_exit_specs("/absent/exits.json", 3); }), HasSubstr("No such file"));
}

TEST(ExitSpec, ValidateSortsOrRefuses) {
  std::vector<ExitSpec> exits = {{.layer = 3}, {.layer = 1}};
  validate_exits(exits, 3, "--exit-layers");
  EXPECT_EQ(exits[0].layer, 1);
  EXPECT_THAT(user_error([&] { validate_exits(exits, 2, "--exit-layers"); }),
              HasSubstr("--exit-layers: exits[1].layer: 3 is out of range"));
  exits[0].weight = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(user_error([&] { validate_exits(exits, 3, "x"); }), HasSubstr("weight: must be >= 0, got nan"));
}

TEST(ExitsConfig, WhatIsWrittenReadsBackEqual) {
  ExitsConfig config{.exits = {}, .backbone_fingerprint = "0123456789abcdef0123456789abcdef"};
  for (const auto& [kind, name] : enum_names(ExitKind{}))
    config.exits.push_back({.layer = static_cast<int64_t>(config.exits.size()) + 1,
                            .kind = kind,
                            .norm = NormKind::own,
                            .translator = TranslatorKind::low_rank,
                            .translator_rank = 3,
                            .init = InitKind::fit,
                            .weight = 0.1,
                            .temperature = 1.0 / 3});
  TempFolder folder;
  const auto file = folder.write("ee_config.json", write_exits_config(config));
  EXPECT_EQ(read_exits_config(file, 5), config);
  QualityLevel level{.agreement = 0.95, .confidence = 0.9, .policy = ExitPolicy::gate, .exits = {}};
  for (const ExitSpec& exit : config.exits)
    level.exits.push_back({.layer = exit.layer, .threshold = 1.0 / 3, .ask = 0.125});
  config.quality = {level};
  EXPECT_EQ(read_exits_config(folder.write("calibrated.json", write_exits_config(config)), 5), config);
  EXPECT_THAT(user_error([&] { read_exits_config(file, 4); }),
              HasSubstr("exits[4].layer: 5 is out of range"));
}

TEST(ExitsConfig, ChecksumsReadBackAndNoneCanChangeUnseen) {
  const ExitsConfig config{.exits = {{.layer = 2}},
                           .backbone_fingerprint = "f",
                           .checksums = Checksums{.backbone = {{"a.weight", "01"}, {"b.weight", "02"}},
                                                  .exits = {{"exits.2.norm.weight", "03"}},
                                                  .gates = {{"exits.2.gate.weight", "04"}}}};
  const std::string good = write_exits_config(config);
  EXPECT_THAT(good, HasSubstr(R"("format_version": 2)"));
  TempFolder folder;
  EXPECT_EQ(read_exits_config(folder.write("ee_config.json", good), 4), config);
  const auto damaged = [&](std::string_view from, std::string_view to) {
    return user_error([&] { read_exits_config(folder.write("damaged.json", with(good, from, to)), 4); });
  };
  for (const char* value : {"\"01\"", "\"02\"", "\"03\"", "\"04\"", "a.weight", "2.gate"})
    EXPECT_THAT(damaged(value, with(value, std::string_view(value).substr(1, 1), "9")),
                HasSubstr("checksums.digest: does not belong to these checksums"))
        << value;
  EXPECT_THAT(damaged("\"01\"", "1"), HasSubstr("checksums.backbone.a.weight: expected text, got number 1"));
  EXPECT_THAT(damaged("\"gates\"", "\"gate\""), HasSubstr("checksums.gates: required, but missing"));
}

TEST(ExitsConfig, RefusesQualityLevelsOfOtherExits) {
  const std::string good = write_exits_config(
      {.exits = {{.layer = 2}},
       .backbone_fingerprint = "f",
       .quality = {{.agreement = 0.9, .confidence = 0.95, .exits = {{.layer = 2, .threshold = 0.5}}}}});
  const auto damaged = [&](std::string_view from, std::string_view to) {
    TempFolder folder;
    const auto file = folder.write("ee_config.json", with(good, from, to));
    return user_error([&] { read_exits_config(file, 4); });
  };
  EXPECT_THAT(damaged(R"("threshold": 0.5)", R"("threshold": 1.5)"),
              HasSubstr("quality[0].exits[0].threshold: must be in [0, 1], got 1.5"));
  EXPECT_THAT(damaged(R"("agreement": 0.9)", R"("agreement": "high")"), HasSubstr("expected number"));
  const std::string other = with(good, "\"layer\": 2", "\"layer\": 3");  // the first one: of the level
  TempFolder folder;
  EXPECT_THAT(user_error([&] { read_exits_config(folder.write("ee_config.json", other), 4); }),
              HasSubstr("quality[0].exits: are not the model's exits"));
}

TEST(ExitsConfig, RefusesOtherVersionsAndDamage) {
  const std::string good = write_exits_config({.exits = {{.layer = 2}}, .backbone_fingerprint = "f"});
  const auto damaged = [&](std::string_view from, std::string_view to) {
    TempFolder folder;
    const auto file = folder.write("ee_config.json", with(good, from, to));
    return user_error([&] { read_exits_config(file, 4); });
  };
  EXPECT_THAT(damaged(R"("format_version": 1)", R"("format_version": 3)"),
              HasSubstr("format_version number 3 is unknown; this program reads versions 1 and 2"));
  EXPECT_THAT(damaged(R"("format_version": 1)", R"("format_version": 2)"),
              HasSubstr("checksums: required, but missing"));
  EXPECT_THAT(damaged(R"("format_version": 1,)", ""), HasSubstr("format_version (missing) is unknown"));
  EXPECT_THAT(damaged(R"("backbone_fingerprint": "f",)", ""),
              HasSubstr("backbone_fingerprint: required, but missing"));
  EXPECT_THAT(damaged(R"("backbone_fingerprint": "f")", R"("backbone_fingerprint": 5)"),
              HasSubstr("backbone_fingerprint: expected text, got number 5"));
  EXPECT_THAT(damaged("\"exits\"", "\"exists\""),
              AllOf(HasSubstr("exits: required, but missing"), HasSubstr("exists: unknown key")));
  EXPECT_THAT(damaged("}", ""), HasSubstr("is not valid JSON"));
}

TEST(ParseLayers, TakesListsSlicesAndFractions) {
  EXPECT_THAT(parse_layers("10,16,22", 30), ElementsAre(10, 16, 22));
  EXPECT_THAT(parse_layers(" 22 , 10", 30), ElementsAre(10, 22));
  EXPECT_THAT(parse_layers("30", 30), ElementsAre(30));
  EXPECT_THAT(parse_layers("4::4", 30), ElementsAre(4, 8, 12, 16, 20, 24, 28));
  EXPECT_THAT(parse_layers("4:12:4", 30), ElementsAre(4, 8, 12));
  EXPECT_THAT(parse_layers("28:", 30), ElementsAre(28, 29, 30));
  EXPECT_THAT(parse_layers(":2", 30), ElementsAre(1, 2));
  EXPECT_THAT(parse_layers("::9223372036854775807", 30), ElementsAre(1));
  EXPECT_THAT(parse_layers("every:1/4", 30), ElementsAre(8, 15, 23, 30));
  EXPECT_THAT(parse_layers("every:2/5", 10), ElementsAre(4, 8));
  EXPECT_THAT(parse_layers("every:1/3", 3), ElementsAre(1, 2, 3));
}

TEST(ParseLayers, EveryFractionGivesTheNearestLayersWithoutRepetition) {
  for (int64_t layers = 1; layers <= 40; ++layers) {
    for (int64_t parts = 1; parts <= layers; ++parts) {
      const auto selected = parse_layers(fmt::format("every:1/{}", parts), layers);
      ASSERT_EQ(selected.size(), static_cast<std::size_t>(parts));
      for (int64_t i = 1; i <= parts; ++i) {
        EXPECT_LE(std::abs(selected[i - 1] - static_cast<double>(i * layers) / parts), 0.5);
        EXPECT_GT(selected[i - 1], i > 1 ? selected[i - 2] : 0);
      }
    }
  }
}

TEST(ParseLayers, RefusesWhatSelectsNothingOrTooMuch) {
  const auto error = [](std::string_view text) { return user_error([&] { parse_layers(text, 30); }); };
  for (const char* text : {"", "  "}) EXPECT_THAT(error(text), HasSubstr("nothing selected"));
  for (const char* text : {"0", "31", "-1", "5,31", "0:", ":31", "99999999999"})
    EXPECT_THAT(error(text), HasSubstr("is out of range; the model has layers 1 to 30"));
  for (const char* text : {"a", "1,", "1.5", "1 2", "every:a/2", "99999999999999999999", "1:x", "every:1/"})
    EXPECT_THAT(error(text), HasSubstr("is not a whole number"));
  for (const char* text : {"1:2:3:4", "every:1", "every:1/2/3"})
    EXPECT_THAT(error(text), HasSubstr("expected a list 10,16,22, a slice"));
  for (const char* text : {"every:0/4", "every:1/0", "every:-1/-4", "every:5/4", "every:1/99999999999"})
    EXPECT_THAT(error(text), HasSubstr("the fraction must be above 0 and at most 1"));
  EXPECT_THAT(error("every:1/31"), HasSubstr("finer than one of 30 layers"));
  EXPECT_THAT(error("5,3,5"), HasSubstr("layer 5 is listed twice"));
  EXPECT_THAT(error("9:8"), HasSubstr("nothing selected, 9 is after 8"));
  EXPECT_THAT(error("1::0"), HasSubstr("the step must be at least 1, got 0"));
}

}  // namespace
}  // namespace ee::config
