// The recipes of configs/ for Llama-2 on 1 to 8 GPUs, checked by --dry-run against models whose files have
// the right headers and sizes but no weights: sparse files take no room.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>

#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "support/model_on_disk.h"
#include "support/process.h"

namespace ee {
namespace {

namespace fs = std::filesystem;

struct Recipe {
  const char* file;
  config::HeadKind head;
  double gpu_gib;  // the GPU that the file's first line names
  int stages;
};

config::ModelConfig llama2(int64_t hidden, int64_t intermediate, int64_t layers, int64_t heads,
                           int64_t kv_heads) {
  config::ModelConfig config;
  config.model_type = "llama";
  config.vocab_size = 32000;
  config.hidden_size = hidden;
  config.intermediate_size = intermediate;
  config.layers = layers;
  config.heads = heads;
  config.kv_heads = kv_heads;
  config.head_dim = hidden / heads;
  config.max_positions = 4096;
  config.eos_tokens = {2};
  config.dtype = "bfloat16";
  return config;
}

config::ModelConfig model_of(const std::string& recipe) {
  if (recipe.starts_with("llama2-7b")) return llama2(4096, 11008, 32, 32, 32);
  if (recipe.starts_with("llama2-13b")) return llama2(5120, 13824, 40, 40, 40);
  return llama2(8192, 28672, 80, 64, 8);
}

// A safetensors file of bf16 tensors with a header and nothing behind it.
void write_sparse(const fs::path& path, const std::vector<model::TensorEntry>& table) {
  nlohmann::ordered_json header;
  uint64_t offset = 0;
  for (const auto& entry : table) {
    uint64_t bytes = 2;
    for (const int64_t size : entry.shape) bytes *= static_cast<uint64_t>(size);
    header[entry.name] = {
        {"dtype", "BF16"}, {"shape", entry.shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(&length), sizeof length)
      .write(text.data(), static_cast<std::streamsize>(length));
  fs::resize_file(path, sizeof length + length + offset);
}

// The model with mlp exits at 1/8 .. 8/8 of its layers.
void write_sparse_model(const fs::path& folder, const config::ModelConfig& config, config::HeadKind head) {
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << config::write_model_config(config);
  test::write_byte_tokenizer(folder);
  write_sparse(folder / "model.safetensors", model::tensor_table(config));
  config::ExitsConfig exits;
  for (int64_t i = 1; i <= 8; ++i)
    exits.exits.push_back({.layer = config.layers * i / 8, .kind = config::ExitKind::mlp, .head = head});
  exits.backbone_fingerprint = checkpoint::fingerprint(checkpoint::TensorFiles::open_folder(folder));
  std::ofstream(folder / "ee_config.json") << config::write_exits_config(exits);
  write_sparse(folder / "exits.safetensors", checkpoint::exit_table(config, exits.exits));
}

class LlamaRecipe : public testing::TestWithParam<Recipe> {
 protected:
  LlamaRecipe()
      : folder_(fs::path(testing::TempDir()) / fmt::format("ee-recipe-{}-{}", ::getpid(), GetParam().file)) {
    fs::remove_all(folder_);
    write_sparse_model(folder_ / "model", model_of(GetParam().file), GetParam().head);
    std::ofstream text(folder_ / "text.txt");
    for (int i = 0; i < 20000; ++i) text << "early exits leave early ";
  }
  ~LlamaRecipe() override { fs::remove_all(folder_); }

  fs::path folder_;
};

TEST_P(LlamaRecipe, FitsItsGpus) {
  test::Process process(EE_BIN_DIR "/ee-tune",
                        {"--config", fmt::format("{}/configs/{}", EE_SOURCE_DIR, GetParam().file),
                         "--dry-run", "--set", "model.path=" + (folder_ / "model").string(), "--set",
                         fmt::format("data.train=[\"{}\"]", (folder_ / "text.txt").string()), "--set",
                         "output=" + (folder_ / "out").string()},
                        folder_ / "output.log");
  const auto finished = process.wait();
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_THAT(finished.output, testing::HasSubstr("40000 steps"));
  const std::regex line("(?:each rank|memory   ) ([0-9.]+) GiB = ");
  int ranks = 0;
  for (std::sregex_iterator match(finished.output.begin(), finished.output.end(), line), end; match != end;
       ++match) {
    ++ranks;
    EXPECT_LT(std::stod((*match)[1]), GetParam().gpu_gib) << finished.output;
  }
  EXPECT_EQ(ranks, GetParam().stages) << finished.output;
}

INSTANTIATE_TEST_SUITE_P(Configs, LlamaRecipe,
                         testing::Values(Recipe{"llama2-7b-1gpu.json", config::HeadKind::shared, 48, 1},
                                         Recipe{"llama2-7b-4gpu.json", config::HeadKind::own, 24, 4},
                                         Recipe{"llama2-7b-8gpu.json", config::HeadKind::own, 24, 4},
                                         Recipe{"llama2-13b-1gpu.json", config::HeadKind::shared, 80, 1},
                                         Recipe{"llama2-13b-4gpu.json", config::HeadKind::own, 40, 4},
                                         Recipe{"llama2-13b-8gpu.json", config::HeadKind::own, 40, 4},
                                         Recipe{"llama2-70b-8gpu.json", config::HeadKind::own, 80, 4}),
                         [](const auto& info) {
                           std::string name = info.param.file;
                           name = name.substr(0, name.find('.'));
                           std::erase(name, '-');
                           return name;
                         });

// Every file in configs/ is a configuration, and no recipe for Llama is left out above.
TEST(Configs, AreAllCovered) {
  int llama = 0;
  for (const auto& entry : fs::directory_iterator(EE_SOURCE_DIR "/configs"))
    llama += entry.path().filename().string().starts_with("llama2-");
  EXPECT_EQ(llama, 7);
}

}  // namespace
}  // namespace ee
