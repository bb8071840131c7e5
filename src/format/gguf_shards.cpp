#include "gguf_shards.h"

#include <algorithm>
#include <optional>

#include "ee/base/error.h"

namespace ee::format {
namespace fs = std::filesystem;
using base::UserError;

namespace {

constexpr const char* kNumber = "split.no";  // from 0
constexpr const char* kCount = "split.count";
constexpr const char* kTensors = "split.tensors.count";  // of all shards together
constexpr int64_t kMaxShards = 65535;                    // gguf-split stores 16 bits

// nullopt: the key is absent. UserError: it is no integer from `least` to `most`.
std::optional<int64_t> find_integer(const GgufContents& contents, const char* key, int64_t least,
                                    int64_t most, const fs::path& file) {
  const auto found = contents.metadata.find(key);
  if (found == contents.metadata.end()) return std::nullopt;
  const auto* value = std::get_if<int64_t>(&found->second);
  if (!value || *value < least || *value > most)
    throw UserError("{}: metadata key {} is not an integer from {} to {}", file.string(), key, least, most);
  return *value;
}

int64_t count_of(const GgufContents& contents, const fs::path& file) {
  return find_integer(contents, kCount, 0, kMaxShards, file).value_or(1);
}

int64_t number_of(const GgufContents& contents, int64_t count, const fs::path& file) {
  const auto number = find_integer(contents, kNumber, 0, count - 1, file);
  if (!number) throw UserError("{}: has {} {}, but no {}", file.string(), kCount, count, kNumber);
  return *number;
}

std::string ending(int64_t number, int64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

// Where all shards are, by the name of one of them.
std::vector<fs::path> shard_paths(const fs::path& path, int64_t number, int64_t count) {
  const std::string name = path.filename().string(), own = ending(number, count);
  if (!name.ends_with(own))
    throw UserError(
        "{} is shard {} of {} ({}, {}), so its name must end in {}, and the others must lie beside it; give "
        "the files the names they had",
        path.string(), number + 1, count, kNumber, kCount, own);
  const std::string prefix = name.substr(0, name.size() - own.size());
  std::vector<fs::path> paths;
  for (int64_t i = 0; i < count; ++i) {
    paths.push_back(path.parent_path() / (prefix + ending(i, count)));
    if (!fs::exists(paths.back()))
      throw UserError("{} is shard {} of {}, but shard {} is missing: there is no {}", path.string(),
                      number + 1, count, i + 1, paths.back().string());
  }
  return paths;
}

void check_tensor_count(const GgufShards& shards) {
  const fs::path& first = shards.files.front().path();
  const auto promised = find_integer(shards.all, kTensors, 0, INT64_MAX, first);
  if (promised && *promised != std::ssize(shards.all.tensors))
    throw UserError(
        "{}: metadata key {} is {}, but {} tensors were found in {} file(s); one of them is not this model's",
        first.string(), kTensors, *promised, shards.all.tensors.size(), shards.files.size());
}

void check_place(const GgufContents& contents, int64_t number, int64_t count, const fs::path& file) {
  const int64_t says_count = count_of(contents, file);
  const auto says_number = find_integer(contents, kNumber, 0, kMaxShards, file);
  if (says_count == count && says_number == number) return;
  throw UserError(
      "{}: should be shard {} of {}, but its metadata says {}; it is another model's", file.string(),
      number + 1, count,
      says_number ? fmt::format("shard {} of {}", *says_number + 1, says_count) : "nothing of shards");
}

// Adds shard `number` of `count`, already opened as `file`.
void add_shard(GgufShards& shards, base::MappedFile file, GgufContents contents, int64_t number,
               int64_t count) {
  check_place(contents, number, count, file.path());
  if (shards.files.empty()) shards.all.metadata = std::move(contents.metadata);
  for (auto& [name, tensor] : contents.tensors)
    if (!shards.all.tensors.emplace(name, std::move(tensor)).second)
      throw UserError("tensor {} in {}: appears in another shard, too", name, file.path().string());
  shards.files.push_back(std::move(file));
}

}  // namespace

GgufShards open_gguf_shards(const fs::path& path) {
  GgufShards shards;
  base::MappedFile given(path);
  GgufContents contents = parse_gguf(given);
  const int64_t count = count_of(contents, path);
  if (count <= 1) {
    shards.all = std::move(contents);
    shards.files.push_back(std::move(given));
  } else {
    const int64_t own = number_of(contents, count, path);
    const std::vector<fs::path> paths = shard_paths(path, own, count);
    for (int64_t i = 0; i < count; ++i) {
      if (i == own) {
        add_shard(shards, std::move(given), std::move(contents), i, count);
        continue;
      }
      base::MappedFile file(paths[static_cast<size_t>(i)]);
      GgufContents others = parse_gguf(file);
      add_shard(shards, std::move(file), std::move(others), i, count);
    }
  }
  check_tensor_count(shards);
  return shards;
}

}  // namespace ee::format
