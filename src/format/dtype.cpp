#include "ee/format/dtype.h"

#include <array>
#include <bit>
#include <string>

#include "ee/base/error.h"

namespace ee::format {

static_assert(std::endian::native == std::endian::little, "every format of this room is little-endian");

namespace {

struct Entry {
  DType dtype;
  size_t size;
  std::string_view name;
};

constexpr std::array<Entry, 10> kEntries = {{{DType::f64, 8, "F64"},
                                             {DType::f32, 4, "F32"},
                                             {DType::f16, 2, "F16"},
                                             {DType::bf16, 2, "BF16"},
                                             {DType::i64, 8, "I64"},
                                             {DType::i32, 4, "I32"},
                                             {DType::i16, 2, "I16"},
                                             {DType::i8, 1, "I8"},
                                             {DType::u8, 1, "U8"},
                                             {DType::boolean, 1, "BOOL"}}};

const Entry& entry_of(DType dtype) {
  for (const Entry& entry : kEntries) {
    if (entry.dtype == dtype) return entry;
  }
  base::check_failed(__FILE__, __LINE__, "dtype", "not a DType");
}

}  // namespace

size_t size_of(DType dtype) { return entry_of(dtype).size; }

std::string_view to_string(DType dtype) { return entry_of(dtype).name; }

DType parse_dtype(std::string_view name) {
  std::string known;
  for (const Entry& entry : kEntries) {
    if (entry.name == name) return entry.dtype;
    known.append(known.empty() ? "" : ", ").append(entry.name);
  }
  throw base::UserError("unknown dtype \"{}\", expected one of {}", name, known);
}

}  // namespace ee::format
