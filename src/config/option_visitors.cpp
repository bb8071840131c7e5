#include "option_visitors.h"

#include <algorithm>

#include "ee/base/text.h"

namespace ee::config {

void JsonReader::report_if_unknown(const std::string& key) const {
  if (std::find(known_.begin(), known_.end(), key) != known_.end()) return;
  std::string suggestion = base::nearest_name(key, known_);
  // A right name in the wrong section beats a similar name in this one.
  for (const auto& path : everywhere_)
    if (path == key || path.ends_with("." + key)) suggestion = path;
  problems_.add(prefix_ + key, "unknown key" + did_you_mean(suggestion));
}

}  // namespace ee::config
