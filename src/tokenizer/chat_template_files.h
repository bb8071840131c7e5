// Finds a folder's chat template as transformers' tokenizers do.
#pragma once

#include <filesystem>

#include "ee/tokenizer/chat.h"

namespace ee::tokenizer {

// chat_template.jinja with additional_chat_templates/<name>.jinja, else `chat_template` in
// tokenizer_config.json (a text or a list of named ones), else chat_template.json, where older processors
// kept it. Of several, the one named "default" counts. The variables come from tokenizer_config.json and,
// without added_tokens_decoder there, from special_tokens_map.json. UserError naming the file that is broken.
ChatTemplate read_chat_template(const std::filesystem::path& folder);

}  // namespace ee::tokenizer
