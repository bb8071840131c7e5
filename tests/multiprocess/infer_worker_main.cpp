// What each rank of infer_test.cpp does: ee_infer_worker SCENARIO FOLDER TENSOR PIPELINE. Every rank also has
// the whole model, whose single-process engine is the reference.
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <functional>
#include <map>
#include <set>

#include "ee/base/program.h"
#include "ee/comm/world.h"
#include "ee/infer/pipeline_engine.h"

namespace ee::infer {
namespace {

struct Rank {
  const parallel::Ranks& ranks;
  Model whole, part;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;

  Generation alone(std::span<const int64_t> prompt, const GenerateOptions& options) const {
    return generate(whole, *tokenizer, prompt, options);
  }
  std::optional<Generation> together(std::span<const int64_t> prompt, const GenerateOptions& options) const {
    return generate_on_ranks(part, ranks, ranks.grid.is_first_stage() ? tokenizer.get() : nullptr, prompt,
                             options);
  }
};

const std::vector<double> kThresholds = {0.2, 0.5, 0.8, 1.0};
const SamplingOptions kSampling = {.temperature = 0.9, .top_k = 60, .top_p = 0.95, .seed = 11};
const std::vector<int64_t> kPrompt = {72, 101, 108, 108, 111, 32, 49};

std::vector<int64_t> ids(const Generation& generation) {
  std::vector<int64_t> ids;
  for (const GeneratedToken& token : generation.tokens) {
    ids.push_back(token.id);
  }
  return ids;
}

// Runs both and compares them on the first stage. Returns the reference.
Generation compare(const Rank& me, std::span<const int64_t> prompt, const GenerateOptions& options) {
  Generation expected = me.alone(prompt, options);
  const std::optional<Generation> found = me.together(prompt, options);
  EE_CHECK(found.has_value() == me.ranks.grid.is_first_stage(), "rank {}", me.ranks.grid.rank());
  if (!found) {
    return expected;
  }
  EE_CHECK(ids(*found) == ids(expected), "threshold {}: tokens {} and not {}", options.threshold,
           fmt::join(ids(*found), " "), fmt::join(ids(expected), " "));
  for (size_t i = 0; i < expected.tokens.size(); ++i) {
    const GeneratedToken &ours = found->tokens[i], &theirs = expected.tokens[i];
    EE_CHECK(ours.exit == theirs.exit && std::abs(ours.confidence - theirs.confidence) < 1e-4,
             "threshold {}, token {}: exit {} at {}, not {} at {}", options.threshold, i, ours.exit,
             ours.confidence, theirs.exit, theirs.confidence);
  }
  EE_CHECK(found->text == expected.text && found->finish == expected.finish, "'{}' and not '{}'", found->text,
           expected.text);
  return expected;
}

void equal(const Rank& me) {
  std::set<int64_t> used;
  for (const double threshold : kThresholds) {
    for (const SamplingOptions& sampling : {SamplingOptions{}, kSampling}) {
      const GenerateOptions options{.max_new_tokens = 40, .threshold = threshold, .sampling = sampling};
      for (const GeneratedToken& token : compare(me, kPrompt, options).tokens) {
        used.insert(token.exit);
      }
    }
  }
  EE_CHECK(used.size() >= 6, "only {} of {} exits and the final layer make tokens: choose other thresholds",
           used.size(), me.whole.exits.size());
}

// Two neighbours, not among the first, as text: ids are bytes.
std::string printable_pair(const std::vector<int64_t>& ids) {
  const auto printable = [](int64_t id) { return id > 32 && id < 127; };
  for (size_t i = 10; i + 1 < ids.size(); ++i) {
    if (printable(ids[i]) && printable(ids[i + 1])) {
      return {static_cast<char>(ids[i]), static_cast<char>(ids[i + 1])};
    }
  }
  EE_CHECK(false, "no printable neighbours in {} tokens", ids.size());
}

void ends(Rank& me) {
  GenerateOptions options{.max_new_tokens = 60, .threshold = 0.5, .sampling = kSampling};
  compare(me, std::span(kPrompt).first(1), options);

  options.max_new_tokens = me.whole.backbone.config.max_positions - static_cast<int64_t>(kPrompt.size());
  const Generation to_the_end = compare(me, kPrompt, options);
  EE_CHECK(to_the_end.finish == FinishReason::length, "the text ends after {} tokens by itself",
           to_the_end.tokens.size());

  options.stop = {printable_pair(ids(to_the_end))};
  const Generation stopped = compare(me, kPrompt, options);
  EE_CHECK(stopped.finish == FinishReason::stop, "'{}' is not in the text", options.stop[0]);

  options.stop = {};
  for (Model* model : {&me.whole, &me.part}) {
    model->backbone.config.eos_tokens = {to_the_end.tokens.at(20).id};
  }
  const Generation ended = compare(me, kPrompt, options);
  EE_CHECK(ended.finish == FinishReason::eos, "{}", to_string(ended.finish));

  options.max_new_tokens = 1;
  compare(me, kPrompt, options);
}

// The KV caches of this rank's layers after a run, against one forward pass over all tokens at once.
void caches(const Rank& me) {
  for (const double threshold : kThresholds) {
    const GenerateOptions options{.max_new_tokens = 40, .threshold = threshold, .sampling = kSampling};
    const std::vector<int64_t> made = ids(me.alone(kPrompt, options));
    std::vector<int64_t> tokens = kPrompt;
    tokens.insert(tokens.end(), made.begin(), made.end() - 1);  // the last one is never fed
    const auto length = static_cast<int64_t>(tokens.size());

    PipelineEngine engine(me.part.backbone, me.part.exits, {.capacity = length, .threshold = threshold},
                          kSampling, me.ranks);
    if (me.ranks.grid.is_first_stage()) {
      int64_t next = engine.step(kPrompt).id;
      for (size_t i = 0; i + 1 < made.size(); ++i) {
        EE_CHECK(next == made[i], "token {} is {} and not {}", i, next, made[i]);
        next = engine.step({&next, 1}).id;
      }
      engine.stop();
    } else {
      engine.serve();
    }

    const c10::InferenceMode no_autograd;
    const model::Backbone& whole = me.whole.backbone;
    at::Tensor hidden = whole.embed(at::tensor(tokens, at::kLong).view({1, length}));
    for (int64_t layer = 1; layer <= me.part.backbone.last_layer(); ++layer) {
      auto expected = model::LayerCache::allocate(whole.config, 1, length, whole.options());
      hidden = model::decoder_layer(whole.config, whole.layer(layer), hidden, whole.rope, &expected).output;
      if (layer < me.part.backbone.first_layer) continue;
      const model::LayerCache& cache = engine.cache(layer);
      EE_CHECK(cache.length == length, "layer {} has {} of {} tokens", layer, cache.length, length);
      EE_CHECK(at::allclose(cache.k, expected.k, 1e-4, 1e-4) && at::allclose(cache.v, expected.v, 1e-4, 1e-4),
               "threshold {}: the cache of layer {} differs", threshold, layer);
    }
  }
}

const std::map<std::string, std::function<void(Rank&)>> kScenarios = {
    {"equal", equal}, {"ends", ends}, {"caches", caches}};

int run(int argc, char** argv) {
  EE_CHECK(argc == 5, "usage: ee_infer_worker scenario folder tensor pipeline");
  at::set_num_threads(1);
  comm::WorldOptions world_options;
  world_options.peer_timeout = std::chrono::seconds(20);
  world_options.operation_timeout = std::chrono::seconds(30);
  comm::World world(comm::detect_launch(), world_options);
  const parallel::Ranks ranks(world, {.tensor = std::stoi(argv[3]), .pipeline = std::stoi(argv[4])},
                              /*sequence=*/false, /*kv_copies=*/1);
  LoadRequest request{.folder = argv[2], .exits = {}};
  Model whole = load_model(request);
  request.tensor = ranks.tensor;
  request.stage = ranks.grid.position().pipeline;
  request.stages = ranks.grid.sizes().pipeline;
  Model part = load_model(request);
  auto tokenizer = load_tokenizer(argv[2], whole.backbone.config);
  Rank me{ranks, std::move(whole), std::move(part), std::move(tokenizer)};
  kScenarios.at(argv[1])(me);
  return 0;
}

}  // namespace
}  // namespace ee::infer

int main(int argc, char** argv) {
  return ee::base::run_program("ee_infer_worker", [&] { return ee::infer::run(argc, argv); });
}
