#include "tune_checks.h"

#include <algorithm>
#include <set>

#include "option_visitors.h"

namespace ee::config {

namespace {

// Adds `text` at `path` unless `holds`; an option that is wrong by itself is not compared with others.
class Expect {
 public:
  explicit Expect(Problems& problems) : problems_(problems) {}

  void operator()(bool holds, const std::string& path, const std::string& text) {
    if (!holds && !problems_.mentions(path)) problems_.add(path, text);
  }

 private:
  Problems& problems_;
};

void check_length(const TuneOptions& o, Problems& problems) {
  for (const char* key : {"steps", "tokens", "epochs"})
    if (problems.mentions(key)) return;
  const int given = (o.steps != 0) + (o.tokens != 0) + (o.epochs != 0);
  if (given != 1)
    problems.add("steps", fmt::format("give exactly one of steps, tokens and epochs; got {}",
                                      given == 0 ? "none of them"
                                                 : fmt::format("steps {}, tokens {}, epochs {}", o.steps,
                                                               o.tokens, o.epochs)));
}

void check_exits(const ExitsOptions& o, Expect& expect) {
  std::set<int64_t> trained, overridden;
  for (const int64_t layer : o.train)
    expect(trained.insert(layer).second, "exits.train", fmt::format("layer {} is listed twice", layer));
  for (std::size_t i = 0; i < o.overrides.size(); ++i) {
    const ExitOverride& change = o.overrides[i];
    const std::string path = fmt::format("exits.overrides[{}]", i);
    expect(change.weight || change.temperature, path, "gives neither weight nor temperature");
    expect(overridden.insert(change.layer).second, path,
           fmt::format("layer {} is overridden twice", change.layer));
    expect(trained.empty() || trained.contains(change.layer), path,
           fmt::format("layer {} is not in exits.train", change.layer));
  }
  expect(o.loss.cross_entropy > 0 || o.loss.needs_teacher(), "exits.loss.cross_entropy",
         "all terms of the loss have factor 0; give one of cross_entropy, kl and hidden");
  const WeightScheduleOptions& schedule = o.weight_schedule;
  const double changing = schedule.warmup_fraction + schedule.cooldown_fraction;
  expect(changing <= 1, "exits.weight_schedule.cooldown_fraction",
         fmt::format("warmup_fraction and cooldown_fraction must be at most 1 together, got {}", changing));
  expect(changing == 0 || schedule.shape != WeightShape::constant, "exits.weight_schedule.shape",
         "constant weights have no warmup_fraction or cooldown_fraction; choose linear or cosine");
}

void check_train(const TuneOptions& o, Expect& expect) {
  const bool all = o.train.backbone();
  expect(o.train.hift.groups == 0 || o.train.mode != TrainMode::exits, "train.hift.groups",
         "trains groups of the backbone's layers, but train.mode is exits; remove one of the two");
  expect(
      o.train.hift.groups == 0 || o.parallel.pipeline == 1, "train.hift.groups",
      fmt::format("layers take turns, so pipeline stages would idle; set parallel.pipeline 1 in place of {}",
                  o.parallel.pipeline));
  expect(o.train.hift.order == HiftOrder::bottom_up || o.train.hift.groups > 0, "train.hift.order",
         "there are no groups to order; set train.hift.groups");
  expect(all || o.train.final_weight == 1.0, "train.final_weight",
         "the final layer is trained only with train.mode all");
  expect(!all || !o.exits.loss.needs_teacher(), "exits.loss.kl",
         "the final layer teaches only while it is frozen; with train.mode all exits learn by cross_entropy");
  expect(!all || o.exits.init == ExitStart::stored, "exits.init",
         "fits the exits to a frozen final layer; fit them in a run of their own before train.mode all");
  expect(all || o.train.recompute, "train.recompute", "nothing is recomputed without train.mode all");
}

bool is_device(const std::string& name) {
  if (name == "cpu" || name == "cuda") return true;
  const std::string_view prefix = "cuda:";
  return name.starts_with(prefix) && name.size() > prefix.size() && name.size() <= prefix.size() + 3 &&
         std::all_of(name.begin() + prefix.size(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

void check_options(const TuneOptions& options, Problems& problems) {
  TuneOptions o = options;  // visitors take what they visit by reference
  OptionChecker checker("", problems);
  visit(checker, o);

  Expect expect(problems);
  check_length(o, problems);
  check_exits(o.exits, expect);
  check_train(o, expect);
  if (o.batch.micro_batch > 0)
    expect(o.batch.global_batch % o.batch.micro_batch == 0, "batch.global_batch",
           fmt::format("must be a multiple of micro_batch {}, got {}", o.batch.micro_batch,
                       o.batch.global_batch));
  if (o.parallel.data > 0 && o.batch.micro_batch > 0)
    expect(o.batch.global_batch % (o.batch.micro_batch * o.parallel.data) == 0, "parallel.data",
           fmt::format("{} replicas cannot share the {} micro-batches of a step evenly", o.parallel.data,
                       o.batch.global_batch / o.batch.micro_batch));
  expect(!o.parallel.sequence || o.parallel.tensor > 1, "parallel.sequence",
         "needs more than one tensor rank; raise parallel.tensor");
  expect(o.schedule.min_lr <= o.optimizer.lr, "schedule.min_lr",
         fmt::format("must not exceed optimizer.lr {}, got {}", o.optimizer.lr, o.schedule.min_lr));
  expect(o.schedule.warmup_steps == 0 || o.schedule.warmup_fraction == 0, "schedule.warmup_fraction",
         "give either warmup_steps or warmup_fraction, not both");
  expect(o.steps == 0 || o.schedule.warmup_steps <= o.steps, "schedule.warmup_steps",
         fmt::format("must not exceed steps {}, got {}", o.steps, o.schedule.warmup_steps));
  expect(o.evaluation.every_steps == 0 || !o.data.validation.empty() || o.data.validation_fraction > 0,
         "evaluation.every_steps",
         "there is no held-out data; give data.validation or a data.validation_fraction above 0");
  expect(!o.gate.train || !o.data.validation.empty() || o.data.validation_fraction > 0, "gate.train",
         "there is no held-out data; give data.validation or a data.validation_fraction above 0");
  expect(is_device(o.device), "device", fmt::format("expected cpu, cuda or cuda:N, got \"{}\"", o.device));
}

}  // namespace ee::config
