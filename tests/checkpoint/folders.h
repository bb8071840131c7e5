// Folders of tiny models for tests, and ways to damage them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "ee/base/file.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/format/safetensors.h"
#include "support/tiny_model.h"

namespace ee::checkpoint {

namespace fs = std::filesystem;

// A folder for one test, removed at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (fs::path(::testing::TempDir()) / "ee-checkpoint-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp " + name);
    path_ = name;
  }
  ~TempFolder() { fs::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const fs::path& path() const { return path_; }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

inline void write_text(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

inline format::TensorToWrite to_write(const std::string& name, const at::Tensor& tensor) {
  return {name, from_torch(tensor.scalar_type()), tensor.sizes().vec(), [tensor](const auto& sink) {
            sink({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
          }};
}

using Tensors = std::map<std::string, at::Tensor>;

inline void write_tensors(const fs::path& file, const Tensors& tensors) {
  std::vector<format::TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) list.push_back(to_write(name, tensor));
  format::write_safetensors(file, list);
}

inline Tensors backbone_tensors(model::Backbone backbone) {
  Tensors tensors;
  model::visit_backbone(backbone, [&](const std::string& name, const auto&, at::Tensor& member) {
    tensors[name] = member.contiguous();
  });
  return tensors;
}

// GPT-2's printable stand-in for a byte, in UTF-8.
inline std::string byte_spelling(int byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += !printable(b);
  }
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

// Every byte is a token; no merges.
inline std::string byte_tokenizer_json() {
  std::string vocab;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string spelling = byte_spelling(byte);
    const bool escaped = spelling == "\"" || spelling == "\\";
    vocab += fmt::format("{}\"{}{}\": {}", byte ? ", " : "", escaped ? "\\" : "", spelling, byte);
  }
  return R"({"version": "1.0", "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": null, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "merges": [], "vocab": {)" +
         vocab + "}}}";
}

inline config::ModelConfig byte_config() {
  config::ModelConfig config = test::tiny_config();
  config.vocab_size = 260;
  return config;
}

// A Hugging Face folder of `backbone`: config.json, tokenizer, `tensors` (default: the backbone's).
inline fs::path write_folder(const fs::path& path, const model::Backbone& backbone,
                             const std::optional<Tensors>& tensors = std::nullopt) {
  fs::create_directories(path);
  write_text(path / "config.json", config::write_model_config(backbone.config));
  write_text(path / "tokenizer.json", byte_tokenizer_json());
  write_text(path / "tokenizer_config.json", "{}");
  write_tensors(path / "model.safetensors", tensors ? *tensors : backbone_tensors(backbone));
  return path;
}

inline std::vector<config::ExitSpec> all_kinds() {
  using namespace config;
  return {{.layer = 1, .kind = ExitKind::embedding, .norm = NormKind::none},
          {.layer = 2, .kind = ExitKind::norm, .head = HeadKind::own, .weight = 0.5},
          {.layer = 3, .kind = ExitKind::mlp, .temperature = 1.5},
          {.layer = 4, .kind = ExitKind::layer, .norm = NormKind::own}};
}

inline std::string bytes_of(const fs::path& file) { return base::read_text_file(file); }

// What a failed run may not leave behind: names in `folder` that are none of `expected`.
inline std::vector<std::string> unexpected_names(const fs::path& folder,
                                                 const std::vector<std::string>& expected) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (std::find(expected.begin(), expected.end(), name) == expected.end()) names.push_back(name);
  }
  return names;
}

}  // namespace ee::checkpoint
