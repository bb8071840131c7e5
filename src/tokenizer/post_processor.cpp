#include "post_processor.h"

#include <nlohmann/json.hpp>

#include "ee/base/error.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using nlohmann::json;

int64_t template_token(const json& post_processor, const std::string& name, const std::string& where) {
  const json& ids = post_processor.at("special_tokens").at(name).at("ids");
  if (ids.size() != 1)
    throw UserError("{}: the post-processor's token {} has {} ids, expected 1", where, name, ids.size());
  return ids.at(0).get<int64_t>();
}

std::optional<int64_t> from_template(const json& post_processor, const std::string& where) {
  std::optional<int64_t> leading;
  bool text_seen = false;
  for (const json& piece : post_processor.at("single")) {
    if (!piece.contains("SpecialToken")) {
      text_seen = true;
      continue;
    }
    const std::string name = piece.at("SpecialToken").at("id");
    if (text_seen || leading) {
      throw UserError(
          "{}: the post-processor adds {} {}, which is not supported (expected one token before the text)",
          where, name, text_seen ? "behind the text" : "as a second token before the text");
    }
    leading = template_token(post_processor, name, where);
  }
  return leading;
}

}  // namespace

std::optional<int64_t> leading_token(const json& post_processor, const std::string& where) {
  if (post_processor.is_null()) return {};
  const std::string type = post_processor.at("type");
  if (type == "ByteLevel") return {};
  if (type == "TemplateProcessing") return from_template(post_processor, where);
  if (type == "Sequence") {
    std::optional<int64_t> leading;
    for (const json& inner : post_processor.at("processors")) {
      const auto token = leading_token(inner, where);
      if (token && leading) throw UserError("{}: the post-processor adds two tokens before the text", where);
      if (token) leading = token;
    }
    return leading;
  }
  throw UserError("{}: the post-processor {} is not supported (expected ByteLevel or TemplateProcessing)",
                  where, type);
}

}  // namespace ee::tokenizer
