// One rank of the test in grid_reading_test.cpp:
//   ee_grid_worker <tune.json>
// Tunes, and compares the bytes that were read of the model with what the rank needs of it.
#include "ee/base/program.h"
#include "ee/base/text.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/config/tune_config.h"
#include "ee/train/trainer.h"

namespace ee::train {
namespace {

struct Share {
  const Job& job;
  parallel::GridPosition position;

  const Stage& stage() const { return job.stages.at(static_cast<size_t>(position.pipeline)); }

  // Whether the stage needs a tensor of the backbone, by its name.
  bool needs(const std::string& name) const {
    if (name == "model.norm.weight") return true;
    if (name == "model.embed_tokens.weight") return stage().is_first;
    if (name == "lm_head.weight") return stage().needs_head;
    const int64_t layer = std::stoll(base::split(name, '.').at(2)) + 1;  // model.layers.<0-based>.
    return layer >= stage().first_layer && layer <= stage().loaded_layers;
  }

  bool has_exit(const std::string& name) const {
    const int64_t layer = std::stoll(base::split(name, '.').at(1));  // exits.<layer>.
    for (size_t i = 0; i < stage().exit_count; ++i)
      if (job.exits[stage().first_exit + i].layer == layer) return true;
    return false;
  }

  // Of a tensor of `bytes`, without biases in the model: what Megatron's division gives a rank.
  int64_t slice(const std::string& name, int64_t rows, int64_t bytes) const {
    const auto& model = job.folder.config();
    const auto is = [&](const char* part) { return name.find(part) != std::string::npos; };
    if (is("norm")) return bytes;
    if (is("embed_tokens") || is("head")) {
      const int64_t part = (rows + job.grid.tensor - 1) / job.grid.tensor, begin = part * position.tensor;
      return bytes / rows * std::max<int64_t>(0, std::min(part, rows - begin));
    }
    return bytes /
           ((is("k_proj") || is("v_proj")) ? std::min(job.grid.tensor, model.kv_heads) : job.grid.tensor);
  }

  template <typename Wanted>
  int64_t bytes(const checkpoint::TensorFiles& files, const Wanted& wanted) const {
    int64_t sum = 0;
    for (const auto& [name, file] : files.names())
      if (wanted(name))
        sum += slice(name, files.at(name).shape[0], static_cast<int64_t>(files.at(name).bytes.size()));
    return sum;
  }
};

void expect_read(const char* what, int64_t read, int64_t expected, int64_t whole) {
  EE_CHECK(read == expected, "read {} bytes of the {}, {} are this rank's share", read, what, expected);
  EE_CHECK(read < whole, "the whole {} was read: the test shows nothing", what);
}

int run(const char* file) {
  const auto launch = comm::detect_launch();
  const Job job = prepare_job(config::read_tune_config(file, {}), launch);
  const base::StopSignal stop;
  EE_CHECK(run_job(job, {}, stop, launch) == 0, "the run did not end well");
  const Share share{job, parallel::RankGrid(job.grid, launch.rank, launch.world_size).position()};
  const auto &backbone = job.folder.backbone_files(), &exits = job.folder.exit_files();
  int64_t whole = 0;
  for (const auto& [name, of] : backbone.names())
    whole += static_cast<int64_t>(backbone.at(name).bytes.size());
  expect_read("backbone", backbone.bytes_read(),
              share.bytes(backbone, [&](const std::string& name) { return share.needs(name); }), whole);
  EE_CHECK(exits.bytes_read() == share.bytes(exits, [&](const auto& name) { return share.has_exit(name); }),
           "read {} bytes of the exits", exits.bytes_read());
  return 0;
}

}  // namespace
}  // namespace ee::train

int main(int argc, char** argv) {
  return ee::base::run_program("ee_grid_worker", [&] {
    EE_CHECK(argc == 2, "usage: ee_grid_worker tune.json");
    return ee::train::run(argv[1]);
  });
}
