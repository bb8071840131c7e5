// gzip (RFC 1952) by zlib. Members follow each other (`cat a.gz b.gz`, bgzip, pigz) and make one text; zeros
// behind the last one are padding, as gzip and Python's gzip module have it.
#include <zlib.h>

#include <vector>

#include "byte_source.h"
#include "ee/base/error.h"

namespace ee::format {

using base::UserError;

namespace {

constexpr std::size_t kInput = 1 << 17;
constexpr int kGzipOnly = 16 + MAX_WBITS;  // zlib's way to ask for gzip's header and checksum

class GzipSource : public ByteSource {
 public:
  GzipSource(std::unique_ptr<ByteSource> packed, std::string name)
      : packed_(std::move(packed)), name_(std::move(name)), input_(kInput) {
    if (::inflateInit2(&stream_, kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~GzipSource() override { ::inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  std::size_t read(std::span<char> into) override {
    stream_.next_out = reinterpret_cast<Bytef*>(into.data());
    stream_.avail_out = static_cast<uInt>(into.size());
    while (stream_.avail_out == into.size()) {
      if (between_members_ && !starts_member()) return 0;
      if (stream_.avail_in == 0 && !refill()) throw UserError("{}: the gzip data in it is cut off", name_);
      const int result = ::inflate(&stream_, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        between_members_ = true;
      } else if (result == Z_MEM_ERROR) {
        throw std::bad_alloc();
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        throw UserError("{}: the gzip data in it is damaged: {}", name_,
                        stream_.msg ? stream_.msg : "unknown cause");
      }
    }
    return into.size() - stream_.avail_out;
  }
  uint64_t file_bytes() const override { return packed_->file_bytes() - stream_.avail_in; }

 private:
  bool refill() {
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
    stream_.avail_in = static_cast<uInt>(packed_->read(input_));
    return stream_.avail_in > 0;
  }

  // Goes over padding to the next member, if there is one; what is no member fails in inflate().
  bool starts_member() {
    for (;;) {
      if (stream_.avail_in == 0 && !refill()) return false;
      if (*stream_.next_in != 0) break;
      ++stream_.next_in;
      --stream_.avail_in;
    }
    ::inflateReset(&stream_);
    between_members_ = false;
    return true;
  }

  std::unique_ptr<ByteSource> packed_;
  std::string name_;
  std::vector<char> input_;
  z_stream stream_{};
  bool between_members_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> unpack_gzip(std::unique_ptr<ByteSource> packed, std::string name) {
  return std::make_unique<GzipSource>(std::move(packed), std::move(name));
}

}  // namespace ee::format
