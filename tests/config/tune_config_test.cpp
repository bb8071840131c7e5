#include "ee/config/tune_config.h"

#include "ee/base/text.h"
#include "support.h"

namespace ee::config {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr const char* kSmallest =
    R"({"model": {"path": "m"}, "output": "o", "data": {"train": ["t.txt"]}, "steps": 10})";

TuneOptions smallest() {
  TuneOptions options;
  options.model.path = "m";
  options.output = "o";
  options.data.train = {"t.txt"};
  options.steps = 10;
  return options;
}

TuneOptions parse(std::string_view text, const std::vector<std::string>& sets = {}) {
  return parse_tune_config(text, "tune.json", sets);
}

std::string error_of(std::string_view text, const std::vector<std::string>& sets = {}) {
  return user_error([&] { parse(text, sets); });
}

// kSmallest with more keys at its end.
std::string plus(const std::string& keys) {
  return with(kSmallest, R"("steps": 10})", "\"steps\": 10, " + keys + "}");
}

// Every option differs from its default.
TuneOptions unusual() {
  TuneOptions o = smallest();
  o.model.precision = Precision::bf16;
  o.model.verify = false;
  o.data = {{"a b.txt", "\"ü\"/folder"}, {"v.jsonl"}, 0.1, "cache", true, 3, false};
  o.exits = {{10, 16},
             ExitStart::stored,
             1000,
             {0.25, 0.0, 2.0, 0.0},
             {{10, 0.25, std::nullopt}, {16, std::nullopt, 2.0}},
             TokenWeights::confidence,
             0.0,
             {WeightShape::cosine, 0.1, 0.2, 0.3, 0.4}};
  o.train = {TrainMode::all, false, 0.5, {3, HiftOrder::random}};
  o.optimizer = {1.0 / 3, 0.8, 0.999, 1e-8, 0.1, ClipMode::global, 0.7};
  o.schedule = {0, 0.05, DecayShape::linear, 1e-7};
  o.batch = {1024, 3, 12};
  o.steps = 0;
  o.epochs = 1.5;
  o.seed = 9007199254740993;  // no double holds it
  o.threads = 2;
  o.device = "cuda:1";
  o.checkpoint = {"c", 100, 0.5, 7, false};
  o.evaluation = {50, 4, false};
  o.logging = {1, "l", false};
  return o;
}

TEST(TuneConfig, AbsentKeysKeepTheirDefaults) { EXPECT_EQ(parse(kSmallest), smallest()); }

TEST(TuneConfig, ShippedConfigsAreThePapersRecipeAndTheDemos) {
  const auto shipped = [](const char* name) {
    return read_tune_config(std::filesystem::path(EE_SOURCE_DIR) / "configs" / name, {});
  };
  TuneOptions expected;
  expected.model.path = "build/demo/exits";
  expected.output = "build/demo/tuned";
  expected.data.train = {"/usr/share/doc/python3.11/html/_sources"};
  expected.optimizer.lr = 2.5e-3;
  expected.schedule.warmup_steps = 10;
  expected.steps = 120;
  EXPECT_EQ(shipped("smollm2.json"), expected);
  expected.exits.loss = {.cross_entropy = 0, .kl = 1};
  expected.optimizer.lr = 3e-4;
  expected.steps = 100;
  EXPECT_EQ(shipped("smollm2-fit.json"), expected);
}

TEST(TuneConfig, PrintedConfigReadsBackEqual) {
  for (const TuneOptions& options : {smallest(), unusual()}) {
    const std::string printed = print_tune_config(options);
    EXPECT_EQ(parse(printed), options) << printed;
  }
}

TEST(TuneConfig, PrintedConfigNamesEveryOptionOfTheReference) {
  const std::string printed = print_tune_config(unusual());
  std::size_t options = 0;
  for (const auto& line : base::split(tune_reference_markdown(), '\n')) {
    const auto begin = line.find('`') + 1;
    if (begin == 0) continue;
    const std::string path = line.substr(begin, line.find('`', begin) - begin);
    EXPECT_THAT(printed, HasSubstr("\"" + base::split(path, '.').back() + "\":")) << path;
    ++options;
  }
  EXPECT_GT(options, 45u);
}

TEST(TuneConfig, ReferenceTellsTypeLimitsDefaultAndMeaning) {
  const std::string reference = tune_reference_markdown();
  EXPECT_THAT(reference, StartsWith("| key | type | default | meaning |\n|---|---|---|---|\n"));
  for (const char* line :
       {"| `model.path` | text | `required` | folder of a model with exits",
        "| `data.train` | list of text | `required` |", "| `exits.overrides` | list of objects | `[]` |",
        "| `exits.overrides[].layer` | integer >= 1 | `required` |",
        "| `exits.overrides[].weight` | number >= 0 | `none` |",
        "| `exits.weight_schedule.shape` | one of constant, linear, cosine | `\"constant\"` |",
        "| `optimizer.lr` | number > 0 | `0.0001` | peak learning rate of AdamW |",
        "| `optimizer.beta2` | number in [0, 1) | `0.95` |",
        "| `evaluation.at_start` | true or false | `true` |"})
    EXPECT_THAT(reference, HasSubstr(line));
}

TEST(TuneConfig, CommentsAreAllowed) {
  EXPECT_EQ(parse(std::string("// why this run exists\n/* and\nhow */") + kSmallest), smallest());
}

TEST(TuneConfig, AByteOrderMarkIsNoPartOfTheFile) {
  EXPECT_EQ(parse("\xEF\xBB\xBF// comment\n" + std::string(kSmallest)), smallest());
  EXPECT_EQ(parse("\xEF\xBB\xBF" + std::string(kSmallest)), smallest());
}

TEST(TuneConfig, WholeNumbersMayHaveAnExponent) {
  EXPECT_EQ(parse(plus(R"("seed": 1e6)")).seed, 1000000);
  EXPECT_THAT(error_of(plus(R"("seed": 1.5)")), EndsWith("seed: expected integer, got number 1.5"));
  EXPECT_THAT(error_of(plus(R"("seed": 9223372036854775808)")), HasSubstr("seed: expected integer"));
}

TEST(TuneConfig, SetWinsOverTheFile) {
  const TuneOptions options = parse(
      plus(R"("optimizer": {"lr": 0.5, "beta1": 0.5})"),
      {"optimizer.lr=3e-4", "output=a=b", "exits.train=[2,4]", "logging.tensorboard=false",
       "optimizer.clip=none", R"(exits.overrides=[{"layer": 2, "weight": 0.5}])", "steps=7", "steps=8"});
  TuneOptions expected = smallest();
  expected.optimizer.lr = 3e-4;
  expected.optimizer.beta1 = 0.5;
  expected.output = "a=b";
  expected.exits.train = {2, 4};
  expected.logging.tensorboard = false;
  expected.optimizer.clip = ClipMode::none;
  expected.exits.overrides = {{.layer = 2, .weight = 0.5, .temperature = std::nullopt}};
  expected.steps = 8;
  EXPECT_EQ(options, expected);
}

TEST(TuneConfig, RefusesBadSets) {
  EXPECT_THAT(error_of(kSmallest, {"optimizer.lrr=1", "batch.micro_batch=two", "steps.x=1", "optimizer=1"}),
              AllOf(StartsWith("tune.json: 4 problems"),
                    HasSubstr("--set optimizer.lrr: unknown key (did you mean lr?)"),
                    HasSubstr("--set batch.micro_batch: expected integer, got text \"two\""),
                    HasSubstr("--set steps: expected integer, got an object"),
                    HasSubstr("--set optimizer: expected object {...}, got number 1")));
  for (const char* set : {"", "optimizer.lr", "=3"})
    EXPECT_THAT(error_of(kSmallest, {set}), HasSubstr("expected key=value"));
  EXPECT_THAT(error_of(kSmallest, {".=1", "optimizer..lr=1"}), HasSubstr("unknown key"));
}

TEST(TuneConfig, ReportsAllUnknownKeysWithTheNearestName) {
  EXPECT_THAT(
      error_of(plus(R"("optimizer": {"wieght_decay": 0.1, "betas": [0.9, 0.95]}, "sched": {},
                               "exits": {"overrides": [{"layer": 3, "wight": 1}]}, "lr": 1e-3, "qqqqqqqq": 1)")),
      AllOf(StartsWith("tune.json: "),
            HasSubstr("optimizer.wieght_decay: unknown key (did you mean weight_decay?)"),
            HasSubstr("optimizer.betas: unknown key (did you mean beta1?)"),
            HasSubstr("sched: unknown key (did you mean seed?)"),
            HasSubstr("exits.overrides[0].wight: unknown key (did you mean weight?)"),
            HasSubstr("lr: unknown key (did you mean optimizer.lr?)"), EndsWith("qqqqqqqq: unknown key")));
}

TEST(TuneConfig, ReportsAllWrongTypesAndRanges) {
  EXPECT_THAT(
      error_of(
          R"({"model": 3, "output": ["o"], "data": {"train": "t", "validation_fraction": 1, "shuffle": 1},
                   "exits": {"train": [3, "x", 0], "token_weights": "confident", "overrides": [{"weight": 1}, 5]},
                   "optimizer": {"lr": 0, "clip_norm": null, "clip": 4}, "steps": -1})"),
      AllOf(
          HasSubstr("model: expected object {...}, got number 3"), Not(HasSubstr("model.path")),
          HasSubstr("output: expected text, got a list"),
          HasSubstr("data.train: expected list of text, got text \"t\""),
          HasSubstr("data.validation_fraction: must be in [0, 1), got 1"),
          HasSubstr("data.shuffle: expected true or false, got number 1"),
          HasSubstr("exits.train[1]: expected integer, got text \"x\""),
          HasSubstr("exits.token_weights: \"confident\" is unknown; expected one of uniform, confidence (did "
                    "you mean confidence?)"),
          HasSubstr("exits.overrides[1]: expected object {...}, got number 5"),
          HasSubstr("optimizer.lr: must be > 0, got 0"),
          HasSubstr("optimizer.clip_norm: expected number, got null"),
          HasSubstr("optimizer.clip: expected one of per_exit, global, none, got number 4"),
          HasSubstr("steps: must be >= 0, got -1")));
}

TEST(TuneConfig, ReportsWhatIsRequired) {
  EXPECT_EQ(error_of("{}"),
            "tune.json: 4 problems\n  model.path: required, but missing or empty\n"
            "  output: required, but missing or empty\n  data.train: required, but missing or empty\n"
            "  steps: give exactly one of steps, tokens and epochs; got none of them");
  EXPECT_THAT(error_of(with(kSmallest, "t.txt", "")), HasSubstr("data.train[0]: must not be empty"));
}

TEST(TuneConfig, RefusesContradictions) {
  const auto expect = [](const std::string& keys, const char* message) {
    EXPECT_THAT(error_of(plus(keys)), HasSubstr(message)) << keys;
  };
  expect(R"("tokens": 5, "epochs": 0.5)",
         "give exactly one of steps, tokens and epochs; got steps 10, tokens 5, epochs 0.5");
  expect(R"("batch": {"micro_batch": 4, "global_batch": 6})",
         "batch.global_batch: must be a multiple of micro_batch 4, got 6");
  expect(R"("batch": {"micro_batch": 0})", "batch.micro_batch: must be >= 1, got 0");
  expect(
      R"("exits": {"weight_schedule": {"shape": "linear", "warmup_fraction": 0.6, "cooldown_fraction": 0.6}})",
      "warmup_fraction and cooldown_fraction must be at most 1 together, got 1.2");
  expect(R"("exits": {"weight_schedule": {"warmup_fraction": 0.6}})",
         "exits.weight_schedule.shape: constant weights have no");
  expect(R"("exits": {"train": [4, 4]})", "exits.train: layer 4 is listed twice");
  expect(R"("exits": {"train": [4], "overrides": [{"layer": 5, "weight": 1}]})",
         "exits.overrides[0]: layer 5 is not in exits.train");
  expect(R"("exits": {"overrides": [{"layer": 5, "weight": 1}, {"layer": 5, "weight": 2}]})",
         "exits.overrides[1]: layer 5 is overridden twice");
  expect(R"("exits": {"overrides": [{"layer": 5}]})",
         "exits.overrides[0]: gives neither weight nor temperature");
  expect(R"("exits": {"overrides": [{"layer": 5, "temperature": 0}]})",
         "exits.overrides[0].temperature: must be > 0, got 0");
  expect(R"("schedule": {"min_lr": 1})", "schedule.min_lr: must not exceed optimizer.lr 0.0001, got 1");
  expect(R"("schedule": {"warmup_steps": 3, "warmup_fraction": 0.1})",
         "schedule.warmup_fraction: give either");
  expect(R"("schedule": {"warmup_steps": 11})", "schedule.warmup_steps: must not exceed steps 10, got 11");
  expect(R"("evaluation": {"every_steps": 5}, "device": "tpu")",
         "device: expected cpu, cuda or cuda:N, got \"tpu\"");
  expect(R"("device": "cuda:")", "device: expected cpu");
  EXPECT_THAT(error_of(with(plus(R"("evaluation": {"every_steps": 5})"), R"(["t.txt"])",
                            R"(["t.txt"], "validation_fraction": 0)")),
              HasSubstr("evaluation.every_steps: there is no held-out data"));
}

TEST(TuneConfig, ValidateChecksOptionsThatCameFromNoFile) {
  EXPECT_NO_THROW(validate(unusual(), "test"));
  TuneOptions options = smallest();
  options.optimizer.eps = std::numeric_limits<double>::infinity();
  options.data.threads = -1;
  EXPECT_EQ(user_error([&] { validate(options, "test"); }),
            "test: 2 problems\n  data.threads: must be >= 0, got -1\n  optimizer.eps: must be > 0, got inf");
}

TEST(TuneConfig, RefusesFilesThatAreNoConfig) {
  EXPECT_THAT(user_error([] { read_tune_config("/absent/tune.json", {}); }),
              AllOf(HasSubstr("/absent/tune.json"), HasSubstr("No such file")));
  for (const char* text : {"", " \n\t"}) EXPECT_THAT(error_of(text), HasSubstr("tune.json is empty"));
  EXPECT_THAT(error_of("steps: 3"),
              AllOf(HasSubstr("tune.json is not valid JSON"), HasSubstr("line 1, column 1")));
  EXPECT_THAT(error_of("{\n  \"steps\": 3,\n}"), HasSubstr("line 3, column 1"));
  EXPECT_THAT(error_of("// nothing but a comment"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("{\"steps\": 1e999}"), HasSubstr("number overflow"));
  EXPECT_THAT(error_of("\"text\""), HasSubstr("a JSON object {...} was expected, got text \"text\""));
  EXPECT_THAT(error_of("{\"output\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(plus(R"("steps": 11)")), HasSubstr("key steps is given twice"));
  EXPECT_THAT(error_of(std::string(1'000'000, '[')), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(plus("\"seed\": " + std::string(1'000'000, '[') + std::string(1'000'000, ']'))),
              HasSubstr("seed: expected integer, got a list"));
}

TEST(TuneConfig, TextInPlaceOfTrainIsItsMode) {
  EXPECT_EQ(parse(plus(R"("train": "all")")).train.mode, TrainMode::all);
  EXPECT_EQ(parse(kSmallest, {"train=all"}).train.mode, TrainMode::all);
  EXPECT_EQ(parse(plus(R"("train": {"mode": "all", "final_weight": 2})"), {"train.recompute=false"}).train,
            (TrainOptions{TrainMode::all, false, 2.0, {}}));
  EXPECT_THAT(error_of(plus(R"("train": "al")")), HasSubstr("train.mode: \"al\" is unknown"));
  EXPECT_THAT(error_of(plus(R"("train": 3)")), HasSubstr("train: expected object {...}"));
}

TEST(TuneConfig, GroupsThatTakeTurnsTrainTheBackbone) {
  EXPECT_FALSE(parse(kSmallest).train.backbone());
  EXPECT_TRUE(parse(plus(R"("train": {"hift": {"groups": 4}})")).train.backbone());
  EXPECT_THAT(error_of(plus(R"("train": {"mode": "exits", "hift": {"groups": 4}})")),
              HasSubstr("train.mode is exits"));
  EXPECT_THAT(error_of(plus(R"("train": {"hift": {"order": "random"}})")), HasSubstr("train.hift.order"));
}

}  // namespace
}  // namespace ee::config
