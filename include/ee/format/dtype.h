// Element types of tensors on disk.
#pragma once

#include <cstddef>
#include <string_view>

namespace ee::format {

enum class DType { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

size_t size_of(DType dtype);               // bytes per element
std::string_view to_string(DType dtype);   // safetensors spelling: "F32", "BF16", ...
DType parse_dtype(std::string_view name);  // UserError: unknown

}  // namespace ee::format
