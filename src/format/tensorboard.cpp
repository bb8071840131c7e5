#include "ee/format/tensorboard.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>

#include "ee/base/error.h"

namespace ee::format {

namespace fs = std::filesystem;

namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  constexpr uint32_t kReversedPolynomial = 0x82f63b78;
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kReversedPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}

template <typename T>
void append_raw(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// TFRecord: u64 length, u32 masked CRC of the length, bytes, u32 masked CRC of the bytes.
uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8;
}

void append_record(std::string& out, std::string_view bytes) {
  std::string length;
  append_raw(length, uint64_t{bytes.size()});
  out += length;
  append_raw(out, masked_crc(length));
  out += bytes;
  append_raw(out, masked_crc(bytes));
}

// Protobuf's wire format: a field is its number and wire type, then the value.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void append_key(std::string& out, uint64_t field, WireType type) { append_varint(out, field << 3 | type); }

void append_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  append_key(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
std::string start_event() {
  std::string event;
  append_key(event, 1, kFixed64);
  append_raw(event,
             std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  return event;
}

// Summary { repeated Value value = 1; }    Value { string tag = 1; float simple_value = 2; }
std::string scalar_summary(std::string_view tag, float number) {
  std::string value, summary;
  append_bytes(value, 1, tag);
  append_key(value, 2, kFixed32);
  append_raw(value, number);
  append_bytes(summary, 1, value);
  return summary;
}

fs::path unused_path(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw base::UserError("cannot create folder {}: {}", folder.string(), error.message());
  char host[256] = "localhost";
  ::gethostname(host, sizeof(host) - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  for (int n = 0;; ++n) {
    fs::path path = folder / fmt::format("events.out.tfevents.{}.{}.{}.{}", seconds, host, ::getpid(), n);
    if (!fs::exists(path)) return path;
  }
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

TensorBoardWriter::TensorBoardWriter(const fs::path& folder) : path_(unused_path(folder)), file_(path_) {
  std::string event = start_event();
  append_bytes(event, 3, "brain.Event:2");  // the version that TensorBoard's reader expects first
  append_record(buffer_, event);
  flush();
}

TensorBoardWriter::~TensorBoardWriter() {
  try {
    flush();
  } catch (
      const base::UserError&) {  // nothing is left to do about it; flush() said so before if it was called
  }
}

void TensorBoardWriter::add_scalar(std::string_view tag, double value, int64_t step) {
  std::string event = start_event();
  append_key(event, 2, kVarint);
  append_varint(event, static_cast<uint64_t>(step));
  append_bytes(event, 5, scalar_summary(tag, static_cast<float>(value)));
  append_record(buffer_, event);
}

void TensorBoardWriter::flush() {
  file_.write(buffer_);
  buffer_.clear();
}

}  // namespace ee::format
