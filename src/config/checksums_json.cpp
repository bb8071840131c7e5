#include "checksums_json.h"

#include "ee/base/hash.h"
#include "json_value.h"

namespace ee::config {

namespace {

struct ChecksumSection {
  const char* key;
  std::map<std::string, std::string> Checksums::*tensors;
};
constexpr ChecksumSection kSections[] = {
    {"backbone", &Checksums::backbone}, {"exits", &Checksums::exits}, {"gates", &Checksums::gates}};
constexpr const char* kDigest = "digest";

std::map<std::string, std::string> read_section(const Json& object, const char* key, Problems& problems) {
  const std::string path = fmt::format("{}.{}", kChecksumsKey, key);
  const auto found = object.find(key);
  std::map<std::string, std::string> tensors;
  if (found == object.end() || !found->is_object()) {
    problems.add(path, found == object.end() ? "required, but missing"
                                             : "expected an object, got " + describe(*found));
    return tensors;
  }
  for (const auto& [name, checksum] : found->items())
    read_value(tensors[name], checksum, fmt::format("{}.{}", path, name), problems);
  return tensors;
}

}  // namespace

std::string Checksums::digest() const {
  base::Hasher hasher;
  for (const auto& [key, tensors] : kSections)
    for (const auto& [name, checksum] : this->*tensors)
      hasher.update(fmt::format("{} {} {}\n", key, name, checksum));
  return hasher.digest();
}

Json write_checksums(const Checksums& checksums) {
  Json object = {{kDigest, checksums.digest()}};
  for (const auto& [key, tensors] : kSections) object[key] = checksums.*tensors;
  return object;
}

Checksums take_checksums(Json& file, Problems& problems) {
  const auto found = file.find(kChecksumsKey);
  const Json object = found == file.end() ? Json() : std::move(*found);
  file.erase(kChecksumsKey);
  Checksums checksums;
  if (!object.is_object()) {
    problems.add(kChecksumsKey,
                 object.is_null() ? "required, but missing" : "expected an object, got " + describe(object));
    return checksums;
  }
  for (const auto& [key, tensors] : kSections) checksums.*tensors = read_section(object, key, problems);
  const auto digest = object.find(kDigest);
  if (digest == object.end() || *digest != checksums.digest())
    problems.add(fmt::format("{}.{}", kChecksumsKey, kDigest),
                 "does not belong to these checksums: the file was damaged or edited; restore it");
  return checksums;
}

}  // namespace ee::config
