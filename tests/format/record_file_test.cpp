#include "ee/format/record_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <vector>

#include "ee/base/error.h"

namespace ee::format {
namespace {
namespace fs = std::filesystem;
using base::UserError;
using testing::HasSubstr;
using testing::ThrowsMessage;

class RecordFileTest : public testing::Test {
 protected:
  void TearDown() override { fs::remove_all(file_.parent_path()); }

  static std::vector<std::byte> record(int value) { return std::vector<std::byte>(100, std::byte(value)); }
  std::vector<std::byte> read(const RecordFile& from, int64_t index) const {
    std::vector<std::byte> record(100);
    from.read(index, record);
    return record;
  }
  void overwrite(int64_t offset, char value) const {
    std::fstream out(file_, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(offset);
    out.put(value);
  }

  fs::path file_ = fs::path(testing::TempDir()) / fmt::format("ee-records-{}", ::getpid()) / "a.records";
};

TEST_F(RecordFileTest, HoldsWhatWasWrittenForOtherProcessesAndLaterOnes) {
  RecordFile writer(file_, 1000, 100), reader(file_, 1000, 100);
  EXPECT_FALSE(reader.has(7));
  writer.write(7, record(1));
  writer.write(999, record(0));  // zeros are a record like any other
  EXPECT_TRUE(reader.has(7));
  EXPECT_TRUE(reader.has(999));
  EXPECT_FALSE(reader.has(8));
  EXPECT_EQ(read(reader, 7), record(1));
  const RecordFile later(file_, 1000, 100);
  EXPECT_EQ(read(later, 999), record(0));
}

TEST_F(RecordFileTest, NamesWhatIsMissingDamagedOrOfOtherSizes) {
  RecordFile file(file_, 10, 100);
  file.write(3, record(1));
  EXPECT_THAT([&] { read(file, 4); }, ThrowsMessage<UserError>(HasSubstr("record 4 is missing or damaged")));
  overwrite(24 + 10 * 16 + 3 * 100 + 50, 2);
  EXPECT_THAT([&] { read(file, 3); }, ThrowsMessage<UserError>(HasSubstr("record 3 is missing or damaged")));
  EXPECT_THAT([&] { RecordFile(file_, 11, 100); },
              ThrowsMessage<UserError>(HasSubstr("does not hold 11 records of 100 bytes; delete it")));
  overwrite(0, 'X');
  EXPECT_THROW(RecordFile(file_, 10, 100), UserError);
}

// A record without its checksum is what a crash leaves.
TEST_F(RecordFileTest, ARecordThatWasCutOffIsNotThere) {
  RecordFile file(file_, 10, 100);
  overwrite(24 + 10 * 16 + 3 * 100, 1);
  EXPECT_FALSE(file.has(3));
}

}  // namespace
}  // namespace ee::format
