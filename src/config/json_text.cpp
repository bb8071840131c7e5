#include "json_text.h"

#include <set>
#include <vector>

#include "ee/base/error.h"
#include "ee/base/file.h"

namespace ee::config {

namespace {

constexpr auto kReplaceBadUtf8 = Json::error_handler_t::replace;

// JSON leaves open what a second `"steps": 5` means, and the parser would take the last one.
class DuplicateKeys {
 public:
  bool operator()(int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      open_objects_.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open_objects_.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const std::string key = parsed.get<std::string>();
      if (!open_objects_.back().insert(key).second) first_duplicate_ = key;
    }
    return true;
  }

  const std::string& first() const { return first_duplicate_; }

 private:
  std::vector<std::set<std::string>> open_objects_;
  std::string first_duplicate_;
};

// "[json.exception.parse_error.101] parse error at line 2, column 3: ..." without the bracket.
std::string explanation(const Json::exception& error) {
  const std::string_view text = error.what();
  const auto end = text.find("] ");
  return std::string(end == std::string_view::npos ? text : text.substr(end + 2));
}

}  // namespace

Json parse_object(std::string_view text, std::string_view origin, Comments comments) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos)
    throw base::UserError("{} is empty; a JSON object was expected", origin);
  DuplicateKeys duplicates;
  Json value;
  try {
    value = Json::parse(text, std::ref(duplicates), true, comments == Comments::allowed);
  } catch (const Json::exception& error) {
    throw base::UserError("{} is not valid JSON: {}", origin, explanation(error));
  }
  if (!value.is_object())
    throw base::UserError("{}: a JSON object {{...}} was expected, got {}", origin, describe(value));
  if (!duplicates.first().empty())
    throw base::UserError("{}: key {} is given twice in one object", origin, duplicates.first());
  return value;
}

Json read_object(const std::filesystem::path& file) {
  return parse_object(base::read_text_file(file), file.string());
}

std::string describe(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  constexpr std::size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', true, kReplaceBadUtf8);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return fmt::format("{}{}", value.is_string() ? "text " : value.is_number() ? "number " : "", text);
}

std::string print(const Json& value) { return value.dump(2, ' ', false, kReplaceBadUtf8) + "\n"; }

}  // namespace ee::config
