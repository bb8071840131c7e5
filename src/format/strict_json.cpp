#include "strict_json.h"

#include <set>
#include <string>
#include <vector>

#include "ee/base/error.h"

namespace ee::format {

nlohmann::json parse_strict_json(std::string_view text, const std::string& where) {
  using Json = nlohmann::json;
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
  try {
    return Json::parse(text, reject_duplicates);
  } catch (const Json::exception& error) {
    throw base::UserError("{}: not valid JSON: {}", where, error.what());
  }
}

}  // namespace ee::format
