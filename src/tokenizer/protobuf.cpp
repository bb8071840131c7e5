#include "protobuf.h"

namespace ee::tokenizer {

bool ProtobufFields::next(Field& field) {
  if (rest_.empty() || broken_) return false;
  uint64_t tag = 0;
  bool whole = varint(tag);
  field = {.number = tag >> 3, .value = 0, .bytes = {}};
  switch (tag & 7) {
    case 0:
      whole = whole && varint(field.value);
      break;
    case 1:
      whole = whole && fixed(8, field.value);
      break;
    case 2:
      whole = whole && text(field.bytes);
      break;
    case 5:
      whole = whole && fixed(4, field.value);
      break;
    default:
      whole = false;
  }
  broken_ = !whole || field.number == 0;
  return !broken_;
}

bool ProtobufFields::varint(uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool ProtobufFields::fixed(int bytes, uint64_t& value) {
  value = 0;
  if (rest_.size() < static_cast<std::size_t>(bytes)) return false;
  for (int i = 0; i < bytes; ++i) {
    value |= uint64_t{static_cast<uint8_t>(rest_[static_cast<std::size_t>(i)])} << (8 * i);
  }
  rest_.remove_prefix(static_cast<std::size_t>(bytes));
  return true;
}

bool ProtobufFields::text(std::string_view& bytes) {
  uint64_t length = 0;
  if (!varint(length) || length > rest_.size()) return false;
  bytes = rest_.substr(0, length);
  rest_.remove_prefix(length);
  return true;
}

}  // namespace ee::tokenizer
