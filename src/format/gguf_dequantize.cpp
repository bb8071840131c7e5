// Blocks of quantized numbers to float32. Layouts: ggml's ggml-common.h. Compiled without fused multiply-add
// (see src/CMakeLists.txt): every machine gets the same bits, and so the same fingerprint of a converted
// model.
#include <algorithm>
#include <bit>
#include <cstring>

#include "ee/base/error.h"
#include "ee/format/gguf.h"
#include "gguf_types.h"

namespace ee::format {

namespace {

using Half = uint16_t;  // IEEE binary16

float to_float(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half & 0x7c00, mantissa = half & 0x3ff;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  const uint32_t normal = magnitude + (112u << 23);  // the exponent's bias is 15 there, 127 here
  const uint32_t special = magnitude | 0x7f800000;   // infinities and NaNs
  const uint32_t subnormal = std::bit_cast<uint32_t>(static_cast<float>(mantissa) * 0x1p-24f);
  return std::bit_cast<float>(sign | (exponent == 0 ? subnormal : exponent == 0x7c00 ? special : normal));
}

struct F32 {
  static constexpr int kElements = 1;
  float value;
  void expand(float* out) const { *out = value; }
};

struct F16 {
  static constexpr int kElements = 1;
  Half value;
  void expand(float* out) const { *out = to_float(value); }
};

struct BF16 {
  static constexpr int kElements = 1;
  uint16_t value;
  void expand(float* out) const { *out = std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }
};

struct Q8_0 {
  static constexpr int kElements = 32;
  Half scale;
  int8_t q[32];
  void expand(float* out) const {
    const float d = to_float(scale);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]);
  }
};

// The four 32-element types with 4 or 5 bits: the low nibbles of q are elements 0-15, the high ones 16-31;
// `fifth` holds one more bit of each.
struct Q4_0 {
  static constexpr int kElements = 32;
  Half scale;
  uint8_t q[16];
  void expand(float* out) const {
    const float d = to_float(scale);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>((q[i] & 15) - 8);
      out[i + 16] = d * static_cast<float>((q[i] >> 4) - 8);
    }
  }
};

struct Q4_1 {
  static constexpr int kElements = 32;
  Half scale, minimum;
  uint8_t q[16];
  void expand(float* out) const {
    const float d = to_float(scale), m = to_float(minimum);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(q[i] & 15) + m;
      out[i + 16] = d * static_cast<float>(q[i] >> 4) + m;
    }
  }
};

int with_fifth_bit(int low, const uint8_t* fifth, int element) {
  return low | (((fifth[element / 8] >> (element % 8)) & 1) << 4);
}

struct Q5_0 {
  static constexpr int kElements = 32;
  Half scale;
  uint8_t fifth[4];
  uint8_t q[16];
  void expand(float* out) const {
    const float d = to_float(scale);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(with_fifth_bit(q[i] & 15, fifth, i) - 16);
      out[i + 16] = d * static_cast<float>(with_fifth_bit(q[i] >> 4, fifth, i + 16) - 16);
    }
  }
};

struct Q5_1 {
  static constexpr int kElements = 32;
  Half scale, minimum;
  uint8_t fifth[4];
  uint8_t q[16];
  void expand(float* out) const {
    const float d = to_float(scale), m = to_float(minimum);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(with_fifth_bit(q[i] & 15, fifth, i)) + m;
      out[i + 16] = d * static_cast<float>(with_fifth_bit(q[i] >> 4, fifth, i + 16)) + m;
    }
  }
};

// Six-bit scales and minimums of the eight 32-element groups of a Q4_K or Q5_K block: bytes 0-3 and 4-7 hold
// those of groups 0-3, and in their two top bits the top bits of groups 4-7, whose low nibbles are bytes
// 8-11.
struct GroupScale {
  float scale, minimum;
};

GroupScale group_scale(const uint8_t* packed, int group, float d, float dmin) {
  if (group < 4)
    return {d * static_cast<float>(packed[group] & 63), dmin * static_cast<float>(packed[group + 4] & 63)};
  const int low = packed[group + 4];
  const int scale = (low & 15) | ((packed[group - 4] >> 6) << 4);
  const int minimum = (low >> 4) | ((packed[group] >> 6) << 4);
  return {d * static_cast<float>(scale), dmin * static_cast<float>(minimum)};
}

struct Q4_K {
  static constexpr int kElements = 256;
  Half d, dmin;
  uint8_t scales[12];
  uint8_t q[128];  // 32 bytes for each two groups: low nibbles, then high nibbles
  void expand(float* out) const {
    for (int group = 0; group < 8; ++group) {
      const GroupScale s = group_scale(scales, group, to_float(d), to_float(dmin));
      const uint8_t* low = q + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) *out++ = s.scale * static_cast<float>((low[i] >> shift) & 15) - s.minimum;
    }
  }
};

struct Q5_K {
  static constexpr int kElements = 256;
  Half d, dmin;
  uint8_t scales[12];
  uint8_t fifth[32];  // bit g of byte i: element i of group g
  uint8_t q[128];     // as in Q4_K
  void expand(float* out) const {
    for (int group = 0; group < 8; ++group) {
      const GroupScale s = group_scale(scales, group, to_float(d), to_float(dmin));
      const uint8_t* low = q + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int value = ((low[i] >> shift) & 15) | (((fifth[i] >> group) & 1) << 4);
        *out++ = s.scale * static_cast<float>(value) - s.minimum;
      }
    }
  }
};

struct Q6_K {
  static constexpr int kElements = 256;
  uint8_t
      low[128];  // for each half block of 128 elements: 64 low nibbles' bytes, elements 0-63 low, 64-127 high
  uint8_t high[64];  // for each half block: bits 2p, 2p+1 of byte i belong to element 32p + i
  int8_t scales[16];
  Half d;
  void expand(float* out) const {
    for (int part = 0; part < 8; ++part) {  // 32 elements each
      const int half = part / 4, p = part % 4;
      const uint8_t* nibbles = low + half * 64 + p % 2 * 32;
      for (int i = 0; i < 32; ++i) {
        const int value = ((nibbles[i] >> (p / 2 * 4)) & 15) | (((high[half * 32 + i] >> (2 * p)) & 3) << 4);
        const float scale = to_float(d) * static_cast<float>(scales[part * 2 + i / 16]);
        *out++ = scale * static_cast<float>(value - 32);
      }
    }
  }
};

template <typename Block>
void expand_all(std::span<const std::byte> bytes, float* out) {
  for (size_t offset = 0; offset < bytes.size(); offset += sizeof(Block), out += Block::kElements) {
    Block block;  // a copy: a file may align its tensors less than the block needs
    std::memcpy(&block, bytes.data() + offset, sizeof(Block));
    block.expand(out);
  }
}

using Expander = void (*)(std::span<const std::byte>, float*);

template <typename Block>
Expander checked_expander(const GgmlTypeInfo& type) {
  EE_CHECK(sizeof(Block) == type.block_bytes && Block::kElements == type.block_elements, "layout of {}",
           type.name);
  return expand_all<Block>;
}

// nullptr: not one of the types that are known here.
Expander find_expander(const GgmlTypeInfo& type) {
  switch (static_cast<GgmlType>(type.number)) {
    case GgmlType::f32:
      return checked_expander<F32>(type);
    case GgmlType::f16:
      return checked_expander<F16>(type);
    case GgmlType::bf16:
      return checked_expander<BF16>(type);
    case GgmlType::q8_0:
      return checked_expander<Q8_0>(type);
    case GgmlType::q4_0:
      return checked_expander<Q4_0>(type);
    case GgmlType::q4_1:
      return checked_expander<Q4_1>(type);
    case GgmlType::q5_0:
      return checked_expander<Q5_0>(type);
    case GgmlType::q5_1:
      return checked_expander<Q5_1>(type);
    case GgmlType::q4_k:
      return checked_expander<Q4_K>(type);
    case GgmlType::q5_k:
      return checked_expander<Q5_K>(type);
    case GgmlType::q6_k:
      return checked_expander<Q6_K>(type);
  }
  return nullptr;
}

const GgmlTypeInfo& type_of(const GgufTensor& tensor) {
  const GgmlTypeInfo* type = find_ggml_type(tensor.type);
  EE_CHECK(type, "tensor {} passed the parser with an unknown type", tensor.name);
  return *type;
}

Expander expander_of(const GgufTensor& tensor, const std::string& where) {
  if (const Expander expand = find_expander(type_of(tensor))) return expand;
  throw base::UserError(
      "tensor {}{} has type {}, which cannot be dequantized; supported are F32, F16, BF16, Q8_0, Q4_0, "
      "Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K. Take another quantization of this model",
      tensor.name, where, type_of(tensor).name);
}

}  // namespace

void check_dequantizable(const GgufTensor& tensor, const std::filesystem::path& file) {
  expander_of(tensor, " in " + file.string());
}

void dequantize_rows(const GgufTensor& tensor, int64_t first_row, int64_t rows, std::span<float> out) {
  const Expander expand = expander_of(tensor, "");
  const GgmlTypeInfo& type = type_of(tensor);
  const int64_t columns = tensor.columns(), all = columns == 0 ? 0 : tensor.elements() / columns;
  EE_CHECK(first_row >= 0 && rows >= 0 && first_row <= all && rows <= all - first_row,
           "tensor {}: rows [{}, {}) of {}", tensor.name, first_row, first_row + rows, all);
  EE_CHECK(out.size() == static_cast<size_t>(rows * columns), "tensor {}: room for {} elements, expected {}",
           tensor.name, out.size(), rows * columns);
  const auto row_bytes = static_cast<size_t>(columns / type.block_elements * type.block_bytes);
  expand(
      tensor.bytes.subspan(static_cast<size_t>(first_row) * row_bytes, static_cast<size_t>(rows) * row_bytes),
      out.data());
}

void dequantize(const GgufTensor& tensor, std::span<float> out) {
  const int64_t columns = tensor.columns();
  dequantize_rows(tensor, 0, columns == 0 ? 0 : tensor.elements() / columns, out);
}

}  // namespace ee::format
