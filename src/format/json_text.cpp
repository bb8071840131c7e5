#include "json_text.h"

#include <set>
#include <vector>

#include "ee/base/error.h"

namespace ee::format {

namespace {

using Json = nlohmann::json;

Json parse(std::string_view text, const Json::parser_callback_t& callback, const std::string& where) {
  try {
    return Json::parse(text, callback);
  } catch (const Json::exception& error) {
    const std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at ..."
    const size_t bracket = what.find("] ");
    throw base::UserError("{}: not valid JSON: {}", where,
                          bracket == std::string_view::npos ? what : what.substr(bracket + 2));
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) { return parse(text, nullptr, where); }

Json parse_strict_json(std::string_view text, const std::string& where) {
  std::vector<std::set<std::string>> open_objects;  // the names seen so far in each object we are inside of
  const auto reject_duplicates = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == Json::parse_event_t::object_end) open_objects.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (!open_objects.back().insert(name).second)
        throw base::UserError("{}: the name \"{}\" appears twice in one object", where, name);
    }
    return true;
  };
  return parse(text, reject_duplicates, where);
}

}  // namespace ee::format
