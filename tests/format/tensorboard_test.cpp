#include "ee/format/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <ctime>

#include "ee/base/error.h"
#include "temp_folder.h"

namespace ee::format {
namespace {

using namespace std::string_literals;

// A naive CRC-32C, bit by bit.
uint32_t slow_crc(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc;
}

uint32_t slow_masked(std::string_view bytes) {
  const uint32_t crc = slow_crc(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <typename T>
T take(std::string_view& in) {
  T value;
  EXPECT_GE(in.size(), sizeof(T));
  std::memcpy(&value, in.data(), sizeof(T));
  in.remove_prefix(sizeof(T));
  return value;
}

std::vector<std::string> records_of(const std::filesystem::path& path) {
  const std::string text = base::read_text_file(path);
  std::string_view in = text;
  std::vector<std::string> records;
  while (!in.empty()) {
    const std::string_view length_bytes = in.substr(0, 8);
    const auto length = take<uint64_t>(in);
    EXPECT_EQ(take<uint32_t>(in), slow_masked(length_bytes));
    records.emplace_back(in.substr(0, length));
    in.remove_prefix(length);
    EXPECT_EQ(take<uint32_t>(in), slow_masked(records.back()));
  }
  return records;
}

// The event's bytes after its wall time, which is checked to be now.
std::string after_wall_time(std::string_view event) {
  EXPECT_EQ(event.front(), 0x09);  // field 1, 64 bits
  event.remove_prefix(1);
  EXPECT_NEAR(take<double>(event), static_cast<double>(std::time(nullptr)), 60.0);
  return std::string(event);
}

TEST(Crc32c, HasItsPublishedValues) {  // RFC 3720, B.4
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(TensorBoardWriter, WritesFramedEvents) {
  const TempFolder folder;
  TensorBoardWriter writer(folder / "run/events");
  writer.add_scalar("loss", 1.5, 300);
  writer.flush();
  const std::vector<std::string> records = records_of(writer.path());
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(after_wall_time(records[0]), "\x1a\x0d"s + "brain.Event:2");
  // step = 300; summary { value { tag = "loss" simple_value = 1.5 } }
  EXPECT_EQ(after_wall_time(records[1]), "\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\xc0\x3f"s);
}

TEST(TensorBoardWriter, OpensANewFileForEveryRun) {
  const TempFolder folder;
  std::filesystem::path first;
  {
    TensorBoardWriter writer(folder.path());
    first = writer.path();
    writer.add_scalar("loss", 1, 0);
  }
  const TensorBoardWriter writer(folder.path());
  EXPECT_NE(writer.path(), first);
  EXPECT_THAT(writer.path().filename().string(), ::testing::StartsWith("events.out.tfevents."));
  EXPECT_EQ(records_of(first).size(), 2u);  // the first writer's end flushed it
}

TEST(TensorBoardWriter, NamesAFolderItCannotCreate) {
  EXPECT_THROW(TensorBoardWriter("/dev/null/events"), base::UserError);
}

}  // namespace
}  // namespace ee::format
