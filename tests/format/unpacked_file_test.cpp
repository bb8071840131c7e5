#include "ee/format/unpacked_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include <thread>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "temp_folder.h"

namespace ee::format {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::string gzip(const std::string& text) {
  z_stream stream{};
  ::deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(text.size() + 1024, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

std::string zstd(const std::string& text, int window_log = 0) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  if (window_log > 0) {
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);  // or the frame says how little it needs
  }
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  ZSTD_inBuffer in{text.data(), text.size(), 0};
  ZSTD_outBuffer out{packed.data(), packed.size(), 0};
  if (window_log > 0) ZSTD_compressStream2(context, &out, &in, ZSTD_e_flush);
  EXPECT_EQ(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end), 0u);
  ZSTD_freeCCtx(context);
  packed.resize(out.pos);
  return packed;
}

std::string long_text() {  // does not fit any buffer, and does not shrink to nothing
  std::string text;
  for (uint64_t i = 0, x = 1; i < 200000; ++i, x = x * 6364136223846793005u + 1)
    text += std::to_string(x >> 40) + "\n";
  return text;
}

struct Unpacked : testing::Test {
  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    base::write_file_atomically(folder / name, bytes);
    return folder / name;
  }
  std::string read(const std::string& bytes) const { return UnpackedFile(write("file", bytes)).read_rest(); }
  void fails(const std::string& bytes, const char* message) const {
    EXPECT_THAT([&] { read(bytes); }, ThrowsMessage<base::UserError>(HasSubstr(message)));
  }

  TempFolder folder;
};

TEST_F(Unpacked, GivesTheBytesOfPlainAndPackedFilesWhateverTheyAreCalled) {
  const std::string text = long_text();
  for (const std::string& bytes : {text, gzip(text), zstd(text)}) {
    const auto path = write("file.txt", bytes);
    EXPECT_EQ(UnpackedFile(path).read_rest(), text);
    std::string one_by_one;
    UnpackedFile file(path);
    for (int byte = file.get(); byte != UnpackedFile::kEnd; byte = file.get())
      one_by_one.push_back(static_cast<char>(byte));
    EXPECT_EQ(one_by_one, text);
    EXPECT_EQ(file.bytes_read(), bytes.size());
  }
  EXPECT_EQ(UnpackedFile(write("a", text)).packing(), Packing::none);
  EXPECT_EQ(UnpackedFile(write("b", gzip(text))).packing(), Packing::gzip);
  EXPECT_EQ(UnpackedFile(write("c", zstd(text))).packing(), Packing::zstd);
  for (const std::string& empty : {std::string(), gzip(""), zstd("")}) EXPECT_EQ(read(empty), "");
}

TEST_F(Unpacked, MembersAndFramesFollowEachOther) {
  const std::string text = long_text();
  EXPECT_EQ(read(gzip("a") + gzip("") + gzip(text) + gzip("b")), "a" + text + "b");
  EXPECT_EQ(read(gzip("a") + std::string(300000, '\0')), "a") << "padding";
  EXPECT_EQ(read(zstd("a") + zstd("") + zstd(text) + zstd("b")), "a" + text + "b");
}

TEST_F(Unpacked, WhatIsCutOffOrDamagedIsRefused) {
  const std::string text = long_text(), gz = gzip(text), zst = zstd(text);
  for (const size_t size : {size_t{4}, size_t{18}, gz.size() / 2, gz.size() - 1})
    fails(gz.substr(0, size), "file: the gzip data in it is cut off");
  for (const size_t size : {size_t{4}, size_t{18}, zst.size() / 2, zst.size() - 1})
    fails(zst.substr(0, size), "file: the zstd data in it is cut off");
  for (std::string damaged : {gz, zst}) {
    damaged[damaged.size() - 2] ^= 1;  // of the checksum in front of the length, or the checksum
    fails(damaged, "data in it is damaged");
  }
  fails(gzip("a") + "rubbish", "the gzip data in it is damaged: incorrect header check");
  fails(zstd("a") + "rubbish", "the zstd data in it is damaged: Unknown frame descriptor");
}

// As `zstd --long=31` makes them; the frame claims the window, and only what is written takes memory.
TEST_F(Unpacked, LongWindowsOfZstdAreRead) { EXPECT_EQ(read(zstd("long", 30)), "long"); }

TEST_F(Unpacked, HeadPassesOverNothing) {
  UnpackedFile file(write("a", "\xEF\xBB\xBFtext"));
  EXPECT_EQ(file.head(4), "\xEF\xBB\xBFt");
  EXPECT_EQ(file.head(100), "\xEF\xBB\xBFtext");
  file.skip_byte_order_mark();
  EXPECT_EQ(file.head(2), "te");
  file.skip_byte_order_mark();
  EXPECT_EQ(file.read_rest(), "text");
  EXPECT_EQ(file.head(1), "");
  EXPECT_EQ(file.peek(), UnpackedFile::kEnd);
}

TEST_F(Unpacked, ReadsPipes) {
  const auto pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::string packed = gzip("text");
  std::jthread writer([&] {
    base::OutputFile out(pipe);
    out.write(packed);
  });
  EXPECT_EQ(UnpackedFile(pipe).read_rest(), "text");
}

TEST_F(Unpacked, RefusesAbsentFilesAndFolders) {
  EXPECT_THAT([&] { UnpackedFile(folder / "absent"); },
              ThrowsMessage<base::UserError>(HasSubstr("absent: No such file")));
  EXPECT_THAT([&] { UnpackedFile(folder.path()); },
              ThrowsMessage<base::UserError>(HasSubstr("it is a folder")));
}

}  // namespace
}  // namespace ee::format
