#include "ee/format/unpacked_file.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "byte_source.h"

namespace ee::format {

namespace {

constexpr std::size_t kBuffer = 1 << 17;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

Packing packing_of(std::string_view head) {
  if (head.starts_with("\x1F\x8B\x08")) return Packing::gzip;
  if (head.starts_with("\x28\xB5\x2F\xFD")) return Packing::zstd;
  // A skippable frame in front: pzstd writes one.
  const bool skippable = head.size() >= 4 && (head[0] & 0xF0) == 0x50 && head.substr(1, 3) == "\x2A\x4D\x18";
  return skippable ? Packing::zstd : Packing::none;
}

std::string read_head(ByteSource& source, std::size_t count) {
  std::string head(count, '\0');
  std::size_t have = 0;
  while (have < count) {
    const std::size_t more = source.read(std::span(head).subspan(have));
    if (more == 0) break;
    have += more;
  }
  head.resize(have);
  return head;
}

}  // namespace

UnpackedFile::UnpackedFile(const std::filesystem::path& path) : path_(path), source_(open_file(path)) {
  std::string head = read_head(*source_, 4);
  packing_ = packing_of(head);
  source_ = put_back(std::move(head), std::move(source_));
  if (packing_ == Packing::gzip) source_ = unpack_gzip(std::move(source_), path.string());
  if (packing_ == Packing::zstd) source_ = unpack_zstd(std::move(source_), path.string());
}

UnpackedFile::~UnpackedFile() = default;
UnpackedFile::UnpackedFile(UnpackedFile&&) noexcept = default;

bool UnpackedFile::fill(std::size_t wanted) {
  if (at_ > 0) std::memmove(buffer_.data(), buffer_.data() + at_, end_ - at_);
  end_ -= std::exchange(at_, 0);
  buffer_.resize(std::max({buffer_.size(), wanted, kBuffer}));
  while (end_ < wanted) {
    const std::size_t count = source_->read(std::span(buffer_).subspan(end_));
    if (count == 0) return false;
    end_ += count;
  }
  return true;
}

std::string_view UnpackedFile::head(std::size_t count) {
  if (end_ - at_ < count) fill(count);
  return {buffer_.data() + at_, std::min(count, end_ - at_)};
}

void UnpackedFile::skip_byte_order_mark() {
  if (head(kByteOrderMark.size()) == kByteOrderMark) at_ += kByteOrderMark.size();
}

std::string UnpackedFile::read_rest() {
  std::string text;
  while (peek() != kEnd) {
    text.append(buffer_.data() + at_, end_ - at_);
    at_ = end_;
  }
  return text;
}

uint64_t UnpackedFile::bytes_read() const { return source_->file_bytes(); }

}  // namespace ee::format
