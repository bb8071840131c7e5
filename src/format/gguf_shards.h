// A model that llama.cpp's gguf-split cut into several files.
#pragma once

#include <filesystem>
#include <vector>

#include "gguf_parser.h"

namespace ee::format {

struct GgufShards {
  std::vector<base::MappedFile> files;  // in their order; one for a model that was not split
  GgufContents all;                     // the first shard's metadata, every shard's tensors
};

// `path` is any of the shards; the others lie beside it under the names that gguf-split gives.
GgufShards open_gguf_shards(const std::filesystem::path& path);

}  // namespace ee::format
