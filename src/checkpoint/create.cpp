#include "ee/checkpoint/create.h"

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/model/random_init.h"
#include "ee/tokenizer/tokenizer.h"
#include "folder_parts.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using base::UserError;

namespace {

// What a tokenizer consists of in a Hugging Face folder, as far as it is there.
constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json",    "tokenizer_config.json", "tokenizer.model",     "vocab.json",
    "merges.txt",        "added_tokens.json",     "chat_template.jinja", "special_tokens_map.json",
    "chat_template.json"};

TensorSources random_sources(const config::ModelConfig& config, uint64_t seed) {
  TensorSources sources;
  for (const auto& entry : model::tensor_table(config)) {
    sources.push_back(
        {entry.name, entry.shape, [entry, layers = config.layers, seed, index = sources.size()] {
           at::Generator generator = model::generator_for(seed, index);
           return model::random_tensor(entry.name, entry.shape, layers, generator);
         }});
  }
  return sources;
}

at::ScalarType dtype_of(const config::ModelConfig& config) {
  if (config.dtype == "bfloat16") return at::kBFloat16;
  return config.dtype == "float16" ? at::kHalf : at::kFloat;
}

void copy_tokenizer(const fs::path& from, const fs::path& to) {
  for (const char* name : kTokenizerFiles) {
    if (!fs::exists(from / name)) continue;
    base::OutputFile out(to / name);
    out.write(base::MappedFile(from / name).bytes());
    out.close();
  }
  constexpr const char* kMoreTemplates = "additional_chat_templates";
  if (fs::is_directory(from / kMoreTemplates)) fs::copy(from / kMoreTemplates, to / kMoreTemplates);
}

}  // namespace

void create_model(const CreateOptions& options) {
  auto config = config::read_model_config_file(options.config);
  // Unlike a pretrained model's, all of its tokens are to be learned.
  const auto tokenizer = tokenizer::Tokenizer::load(options.tokenizer);
  if (tokenizer->vocab_size() > config.vocab_size)
    throw UserError("the tokenizer in {} has {} tokens, but {} says vocab_size {}; raise it",
                    options.tokenizer.string(), tokenizer->vocab_size(), options.config.string(),
                    config.vocab_size);
  const at::ScalarType dtype = dtype_of(config);
  if (config.dtype.empty()) config.dtype = "float32";
  base::AtomicDirectory output(options.output);
  copy_tokenizer(options.tokenizer, output.path());
  base::OutputFile json(output.path() / "config.json");
  json.write(config::write_model_config(config));
  json.close();
  write_backbone(output.path(), random_sources(config, options.seed), dtype);
  output.commit();
}

}  // namespace ee::checkpoint
