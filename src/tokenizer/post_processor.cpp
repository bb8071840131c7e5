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

void put(std::optional<int64_t>& place, int64_t token, const std::string& where) {
  if (place) {
    throw UserError(
        "{}: the post-processor adds two tokens on one side of the text, which is not supported (expected "
        "one "
        "before it, one behind it, or both)",
        where);
  }
  place = token;
}

void add_template(const json& post_processor, const std::string& where, AroundText& around) {
  bool text_seen = false;
  for (const json& piece : post_processor.at("single")) {
    if (!piece.contains("SpecialToken")) {
      text_seen = true;
      continue;
    }
    const std::string name = piece.at("SpecialToken").at("id");
    put(text_seen ? around.behind : around.before, template_token(post_processor, name, where), where);
  }
}

void add(const json& post_processor, const std::string& where, AroundText& around) {
  if (post_processor.is_null()) return;
  const std::string type = post_processor.at("type");
  if (type == "ByteLevel") return;  // changes offsets only
  if (type == "TemplateProcessing") return add_template(post_processor, where, around);
  if (type == "Sequence") {
    for (const json& inner : post_processor.at("processors")) add(inner, where, around);
    return;
  }
  throw UserError("{}: the post-processor {} is not supported (expected ByteLevel or TemplateProcessing)",
                  where, type);
}

}  // namespace

AroundText tokens_around_text(const json& post_processor, const std::string& where) {
  AroundText around;
  add(post_processor, where, around);
  return around;
}

}  // namespace ee::tokenizer
