#include "ee/checkpoint/tensor_files.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <set>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/text.h"
#include "folder_parts.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using base::UserError;

namespace {

// Old checkpoints stored what can be computed; transformers ignores every name with this in it.
bool is_rotary_buffer(const std::string& name) {
  return name.find("rotary_emb.inv_freq") != std::string::npos;
}

bool is_float(format::DType dtype) {
  using enum format::DType;
  return dtype == f32 || dtype == f16 || dtype == bf16;
}

std::string show(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// weight_map of the index: tensor name -> file name, which must lie in the folder itself.
std::map<std::string, std::string> read_weight_map(const fs::path& index_file) {
  const auto json = nlohmann::json::parse(base::read_text_file(index_file), nullptr, false);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object() || map->empty())
    throw UserError("{}: expected a JSON object with a non-empty object \"weight_map\"", index_file.string());
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || fs::path(name).filename() != name || name == "..")
      throw UserError("{}: weight_map of {} must be the name of a file in the same folder, got {}",
                      index_file.string(), tensor, file.dump());
    files[tensor] = name;
  }
  return files;
}

[[noreturn]] void no_weights(const fs::path& folder) {
  const bool pickled =
      fs::exists(folder / "pytorch_model.bin") || fs::exists(folder / "pytorch_model.bin.index.json");
  throw UserError("{} has neither {} nor {}{}", folder.string(), kSingleFile, kIndexFile,
                  pickled ? "; save its pytorch_model.bin as safetensors first (save_pretrained)" : "");
}

}  // namespace

at::ScalarType to_torch(format::DType dtype) {
  using enum format::DType;
  switch (dtype) {
    case f64:
      return at::kDouble;
    case f32:
      return at::kFloat;
    case f16:
      return at::kHalf;
    case bf16:
      return at::kBFloat16;
    case i64:
      return at::kLong;
    case i32:
      return at::kInt;
    case i16:
      return at::kShort;
    case i8:
      return at::kChar;
    case u8:
      return at::kByte;
    case boolean:
      return at::kBool;
  }
  EE_CHECK(false, "dtype {}", static_cast<int>(dtype));
}

format::DType from_torch(at::ScalarType dtype) {
  using enum format::DType;
  for (const auto candidate : {f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean})
    if (to_torch(candidate) == dtype) return candidate;
  EE_CHECK(false, "dtype {} has no safetensors name", c10::toString(dtype));
}

TensorFiles TensorFiles::open_file(const fs::path& file) {
  TensorFiles result;
  result.files_.emplace_back(file);
  for (const auto& [name, view] : result.files_.front().tensors()) result.index_[name] = 0;
  return result;
}

TensorFiles TensorFiles::open_folder(const fs::path& folder) {
  if (fs::exists(folder / kSingleFile)) return open_file(folder / kSingleFile);
  const fs::path index_file = folder / kIndexFile;
  if (!fs::exists(index_file)) no_weights(folder);

  const auto weight_map = read_weight_map(index_file);
  TensorFiles result;
  std::map<std::string, size_t> opened;
  for (const auto& [tensor, file] : weight_map) {
    if (!fs::exists(folder / file))
      throw UserError("{} says that tensor {} is in {}, which does not exist; is the download complete?",
                      index_file.string(), tensor, (folder / file).string());
    const auto [entry, is_new] = opened.try_emplace(file, result.files_.size());
    if (is_new) result.files_.emplace_back(folder / file);
    if (!result.files_[entry->second].tensors().contains(tensor))
      throw UserError("{} says that tensor {} is in {}, but that file has no such tensor",
                      index_file.string(), tensor, (folder / file).string());
    result.index_[tensor] = entry->second;
  }
  for (const auto& file : result.files_)
    for (const auto& [tensor, view] : file.tensors())
      if (const auto entry = weight_map.find(tensor);
          !is_rotary_buffer(tensor) && (entry == weight_map.end() || entry->second != file.path().filename()))
        throw UserError("tensor {} is in {}, but {} does not say so", tensor, file.path().string(),
                        index_file.string());
  return result;
}

const std::string& TensorFiles::stored_name(const std::string& name) const {
  const auto entry = other_names_.find(name);
  return entry == other_names_.end() ? name : entry->second;
}

const fs::path& TensorFiles::file_of(const std::string& name) const {
  return files_[index_.at(stored_name(name))].path();
}

const format::TensorView& TensorFiles::at(const std::string& name) const {
  const std::string& stored = stored_name(name);
  const auto entry = index_.find(stored);
  if (entry != index_.end()) return files_[entry->second].at(stored);
  EE_CHECK(!files_.empty(), "no file was opened");
  return files_.front().at(name);  // throws: names tensor, file and the nearest tensor
}

at::Tensor TensorFiles::alias(const std::string& name) const {
  const format::TensorView& view = at(name);
  const auto options = at::TensorOptions().dtype(to_torch(view.dtype));
  // ATen has no read-only tensors; nobody writes to these, and the map is private anyway.
  void* data = const_cast<std::byte*>(view.bytes.data());
  const at::Tensor mapped = at::from_blob(data, view.shape, options);
  const bool aligned = reinterpret_cast<uintptr_t>(data) % format::size_of(view.dtype) == 0;
  if (aligned) return mapped;
  at::Tensor copy = at::empty(view.shape, options);
  std::memcpy(copy.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return copy;
}

at::Tensor TensorFiles::read(const std::string& name, const parallel::Slice& slice, at::Device device,
                             at::ScalarType dtype) const {
  const at::Tensor part = alias(name).narrow(slice.axis, slice.begin, slice.length);
  bytes_read_ += static_cast<int64_t>(part.nbytes());
  const at::Tensor copy = part.to(device, dtype, /*non_blocking=*/false, /*copy=*/true).contiguous();
  base::release_pages(at(name).bytes);
  return copy;
}

void check_has_layers(const TensorFiles& files, int64_t layers) {
  const std::string last = fmt::format("model.layers.{}.input_layernorm.weight", layers - 1);
  if (!files.contains(last))
    throw UserError("tensor {} is missing in {}, but config.json says num_hidden_layers {}", last,
                    files.files().front().path().string(), layers);
}

void check_against_table(const TensorFiles& files, const std::vector<model::TensorEntry>& table, bool exact) {
  std::map<std::string, std::vector<std::string>> problems;  // by kind
  std::set<std::string> expected;
  const auto file_of = [&](const std::string& name) { return files.file_of(name).string(); };
  for (const auto& entry : table) {
    expected.insert(entry.name);
    if (!files.contains(entry.name)) {
      problems["missing"].push_back(fmt::format("tensor {} with shape {} is missing in {}", entry.name,
                                                show(entry.shape), files.files().front().path().string()));
      continue;
    }
    const format::TensorView& view = files.at(entry.name);
    if (view.shape != entry.shape)
      problems["shape"].push_back(fmt::format("tensor {} in {} has shape {}, expected {}", entry.name,
                                              file_of(entry.name), show(view.shape), show(entry.shape)));
    else if (!is_float(view.dtype))
      problems["dtype"].push_back(fmt::format("tensor {} in {} has dtype {}, expected F32, BF16 or F16",
                                              entry.name, file_of(entry.name),
                                              format::to_string(view.dtype)));
  }
  for (const auto& [name, file] : files.names())
    if (exact && !expected.contains(name) && !is_rotary_buffer(name) &&
        !(name == kHead && expected.contains("model.embed_tokens.weight")))  // a tied head, stored twice
      problems["extra"].push_back(
          fmt::format("tensor {} in {} is none of this model's tensors", name, file_of(name)));
  if (problems.empty()) return;

  std::vector<std::string> lines;
  for (const auto& [kind, found] : problems) {
    lines.push_back(found.front());
    if (found.size() > 1) lines.back() += fmt::format(" (and {} more like it)", found.size() - 1);
  }
  throw UserError("{}", base::join(lines, "\n  "));
}

}  // namespace ee::checkpoint
