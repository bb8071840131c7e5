// The wire format of protobuf, as far as SentencePiece models use it.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ee::tokenizer {

// Hands out the fields of one message in their order.
class ProtobufFields {
 public:
  struct Field {
    uint64_t number = 0;
    uint64_t value = 0;      // of varints and fixed-width fields
    std::string_view bytes;  // of texts and messages

    bool flag() const { return value != 0; }
    int32_t integer() const { return static_cast<int32_t>(value); }
    float real() const { return std::bit_cast<float>(static_cast<uint32_t>(value)); }
  };

  explicit ProtobufFields(std::string_view message) : rest_(message) {}

  // False at the end, and when the message is broken.
  bool next(Field& field);
  bool broken() const { return broken_; }

 private:
  bool varint(uint64_t& value);
  bool fixed(int bytes, uint64_t& value);
  bool text(std::string_view& bytes);

  std::string_view rest_;
  bool broken_ = false;
};

}  // namespace ee::tokenizer
