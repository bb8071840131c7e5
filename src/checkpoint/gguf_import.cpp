#include "gguf_import.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/format/safetensors.h"
#include "ee/model/tensor_table.h"
#include "ee/tokenizer/gguf_tokenizer.h"
#include "gguf_rope.h"
#include "open_tokenizer.h"

namespace ee::checkpoint {
using base::UserError;
using format::GgufFile;
using format::GgufTensor;

namespace {

constexpr int64_t kPieceElements = 1 << 20;  // of f32 in memory at a time

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight".
std::string gguf_name(std::string name, int64_t layer) {
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == "lm_head.weight") return "output.weight";
  static constexpr std::pair<const char*, const char*> kParts[] = {
      {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  name.erase(0, fmt::format("model.layers.{}.", layer - 1).size());
  const size_t dot = name.rfind('.');
  for (const auto& [hugging_face, gguf] : kParts)
    if (name.compare(0, dot, hugging_face) == 0)
      return fmt::format("blk.{}.{}{}", layer - 1, gguf, name.substr(dot));
  EE_CHECK(false, "tensor {} has no GGUF name", name);
}

// One tensor on its way from the one format to the other.
struct Conversion {
  const GgufTensor* tensor;
  at::ScalarType dtype;
  int64_t head_rows;  // head_dim for the q and k projections, whose rows are interleaved; else 0
};

// Rows of one head are stored as [head_dim/2, 2] (pairs that rotate together); Hugging Face has [2,
// head_dim/2].
at::Tensor uninterleave(const at::Tensor& rows, int64_t head_dim) {
  return rows.view({-1, head_dim / 2, 2, rows.size(-1)}).transpose(1, 2).contiguous();
}

void produce(const Conversion& conversion, const std::function<void(std::span<const std::byte>)>& sink) {
  const GgufTensor& tensor = *conversion.tensor;
  const bool vector = tensor.shape.size() == 1;
  const int64_t width = vector ? 1 : tensor.columns();
  const int64_t rows = tensor.elements() / width;
  const int64_t unit = std::max<int64_t>(conversion.head_rows, 1);  // whole heads only
  const int64_t piece_rows = vector ? rows : std::max<int64_t>(kPieceElements / width / unit, 1) * unit;
  for (int64_t first = 0; first < rows; first += piece_rows) {
    const int64_t count = std::min(piece_rows, rows - first);
    at::Tensor piece = at::empty({count, width}, at::kFloat);
    const std::span<float> values(piece.mutable_data_ptr<float>(), static_cast<size_t>(piece.numel()));
    if (vector)
      format::dequantize(tensor, values);
    else
      format::dequantize_rows(tensor, first, count, values);
    if (conversion.head_rows > 0) piece = uninterleave(piece, conversion.head_rows);
    piece = piece.to(conversion.dtype);
    sink({static_cast<const std::byte*>(piece.const_data_ptr()), piece.nbytes()});
  }
}

void check_tensor(const GgufFile& file, const GgufTensor& tensor, const std::vector<int64_t>& expected) {
  if (tensor.shape != expected)
    throw UserError("tensor {} in {} has shape [{}], the metadata implies [{}]", tensor.name,
                    file.path_of(tensor).string(), fmt::join(tensor.shape, ", "), fmt::join(expected, ", "));
  format::check_dequantizable(tensor, file.path_of(tensor));
}

std::vector<format::TensorToWrite> conversions(const GgufFile& file, const config::ModelConfig& config,
                                               format::DType dtype) {
  std::vector<format::TensorToWrite> result;
  std::set<std::string> used = {kRopeFactors};  // in config.json
  for (const auto& entry : model::tensor_table(config)) {
    const GgufTensor& tensor = file.at(gguf_name(entry.name, entry.layer));
    check_tensor(file, tensor, entry.shape);
    used.insert(tensor.name);
    const bool interleaved =
        entry.name.find(".q_proj.") != std::string::npos || entry.name.find(".k_proj.") != std::string::npos;
    const Conversion conversion{&tensor, to_torch(dtype), interleaved ? config.head_dim : 0};
    result.push_back(
        {entry.name, dtype, entry.shape, [conversion](const auto& sink) { produce(conversion, sink); }});
  }
  for (const auto& [name, tensor] : file.tensors())
    if (!used.contains(name))
      throw UserError("tensor {} in {} is none of a Llama's tensors; the model has parts that would be lost",
                      name, file.path_of(tensor).string());
  return result;
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  base::OutputFile out(path);
  out.write(text);
  out.close();
}

// config.json holds the same tokens, but transformers and others look here first.
std::string generation_config(const config::ModelConfig& config) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (config.bos_token) json["bos_token_id"] = *config.bos_token;
  if (config.eos_tokens.size() == 1) json["eos_token_id"] = config.eos_tokens.front();
  if (config.eos_tokens.size() > 1) json["eos_token_id"] = config.eos_tokens;
  return json.dump(2) + "\n";
}

}  // namespace

GgufImport::GgufImport(const GgufFile& file, format::DType dtype)
    : file_(file), config_(gguf_model_config(file)), tensors_(conversions(file, config_, dtype)) {
  config_.dtype = dtype == format::DType::f32    ? "float32"
                  : dtype == format::DType::bf16 ? "bfloat16"
                                                 : "float16";
}

void GgufImport::write(const std::filesystem::path& folder) const {
  write_text(folder / "config.json", config::write_model_config(config_));
  write_text(folder / "generation_config.json", generation_config(config_));
  // Before the long part: it can refuse, too.
  tokenizer::check_gguf_model_type(file_, config_.model_type);
  tokenizer::write_hf_tokenizer(file_, folder);
  check_tokenizer_opens(folder, config_.vocab_size, file_.path());
  format::write_safetensors(folder / "model.safetensors", tensors_, {{"format", "pt"}});
}

}  // namespace ee::checkpoint
