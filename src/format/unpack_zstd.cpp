// Zstandard (RFC 8878) by libzstd. Frames follow each other and make one text, skippable ones say nothing.
#include <zstd.h>

#include <vector>

#include "byte_source.h"
#include "ee/base/error.h"

namespace ee::format {

using base::UserError;

namespace {

class ZstdSource : public ByteSource {
 public:
  ZstdSource(std::unique_ptr<ByteSource> packed, std::string name)
      : packed_(std::move(packed)), name_(std::move(name)), buffer_(ZSTD_DStreamInSize()) {
    if (!stream_) throw std::bad_alloc();
    // Web dumps are packed with windows of up to 2 GiB (zstd --long=31); only such a frame takes the memory.
    const auto longest = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound;
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, longest);
  }

  std::size_t read(std::span<char> into) override {
    ZSTD_outBuffer output{into.data(), into.size(), 0};
    while (output.pos == 0) {
      if (input_.pos == input_.size && !refill() && !owes_output_) {
        if (inside_frame_) throw UserError("{}: the zstd data in it is cut off", name_);
        return 0;
      }
      const std::size_t left = ZSTD_decompressStream(stream_.get(), &output, &input_);
      if (ZSTD_isError(left))
        throw UserError("{}: the zstd data in it is damaged: {}", name_, ZSTD_getErrorName(left));
      inside_frame_ = left != 0;
      // The caller's room was filled: the rest may come without any more input.
      owes_output_ = inside_frame_ && output.pos == output.size;
    }
    return output.pos;
  }
  uint64_t file_bytes() const override { return packed_->file_bytes() - (input_.size - input_.pos); }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };

  bool refill() {
    input_ = {buffer_.data(), packed_->read(buffer_), 0};
    return input_.size > 0;
  }

  std::unique_ptr<ByteSource> packed_;
  std::string name_;
  std::vector<char> buffer_;
  std::unique_ptr<ZSTD_DStream, Free> stream_{ZSTD_createDStream()};
  ZSTD_inBuffer input_{nullptr, 0, 0};
  bool inside_frame_ = false, owes_output_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> unpack_zstd(std::unique_ptr<ByteSource> packed, std::string name) {
  return std::make_unique<ZstdSource>(std::move(packed), std::move(name));
}

}  // namespace ee::format
