#include "gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>

#include "ee/base/error.h"
#include "gguf_types.h"

namespace ee::format {

using base::UserError;

namespace {

constexpr uint32_t kMaxDims = 4;  // ggml's own limit
constexpr uint64_t kMaxListLength =
    1u << 24;  // far beyond any vocabulary; bounds what a hostile file can allocate
constexpr int64_t kDefaultAlignment = 32;
constexpr char kMagic[] = {'G', 'G', 'U', 'F'};

enum class ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

// Reads front to back; never beyond the end of the file.
class Cursor {
 public:
  explicit Cursor(const base::MappedFile& file) : file_(file.path().string()), bytes_(file.bytes()) {}

  const std::string& file() const { return file_; }
  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

  std::span<const std::byte> take(uint64_t count, std::string_view what) {
    if (count > remaining())
      throw UserError(
          "{}: {} at byte {} needs {} bytes, but only {} are left; the file is truncated or corrupt", file_,
          what, offset_, count, remaining());
    const auto taken = bytes_.subspan(offset_, count);
    offset_ += count;
    return taken;
  }

  template <typename T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string string(std::string_view what) {
    const auto length = number<uint64_t>(what);
    const auto text = take(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

 private:
  std::string file_;
  std::span<const std::byte> bytes_;
  uint64_t offset_ = 0;
};

uint64_t min_size_of(ValueType type) {  // bytes that one value takes at least
  switch (type) {
    case ValueType::u8:
    case ValueType::i8:
    case ValueType::boolean:
      return 1;
    case ValueType::u16:
    case ValueType::i16:
      return 2;
    case ValueType::u32:
    case ValueType::i32:
    case ValueType::f32:
      return 4;
    default:
      return 8;
  }
}

bool is_float(ValueType type) { return type == ValueType::f32 || type == ValueType::f64; }

// Any of the integer types and boolean. The second member is set when int64_t cannot hold the value.
struct Integer {
  int64_t value;
  bool too_large = false;
};

Integer read_integer(Cursor& in, ValueType type, const std::string& what) {
  switch (type) {
    case ValueType::u8:
      return {in.number<uint8_t>(what)};
    case ValueType::i8:
      return {in.number<int8_t>(what)};
    case ValueType::u16:
      return {in.number<uint16_t>(what)};
    case ValueType::i16:
      return {in.number<int16_t>(what)};
    case ValueType::u32:
      return {in.number<uint32_t>(what)};
    case ValueType::i32:
      return {in.number<int32_t>(what)};
    case ValueType::i64:
      return {in.number<int64_t>(what)};
    case ValueType::boolean:
      return {in.number<uint8_t>(what) != 0};
    case ValueType::u64: {
      const auto value = in.number<uint64_t>(what);
      return {static_cast<int64_t>(value), value > uint64_t{std::numeric_limits<int64_t>::max()}};
    }
    default:
      throw UserError("{}: {} has the unknown type {}", in.file(), what, static_cast<uint32_t>(type));
  }
}

double read_float(Cursor& in, ValueType type, const std::string& what) {
  return type == ValueType::f32 ? double{in.number<float>(what)} : in.number<double>(what);
}

template <typename Read>
auto read_list(uint64_t count, Read read_one) {
  std::vector<decltype(read_one())> list;
  list.reserve(count);
  for (uint64_t i = 0; i < count; ++i) list.push_back(read_one());
  return list;
}

GgufValue read_array(Cursor& in, const std::string& what) {
  const auto type = static_cast<ValueType>(in.number<uint32_t>(what));
  const auto count = in.number<uint64_t>(what);
  if (type == ValueType::array)
    throw UserError("{}: {} is a list of lists, which is not supported", in.file(), what);
  if (count > kMaxListLength || count > in.remaining() / min_size_of(type))
    throw UserError(
        "{}: {} promises a list of {} values, but only {} bytes are left; the file is truncated or corrupt",
        in.file(), what, count, in.remaining());
  if (type == ValueType::string) return read_list(count, [&] { return in.string(what); });
  if (is_float(type)) return read_list(count, [&] { return read_float(in, type, what); });
  return read_list(count, [&] {
    const Integer integer = read_integer(in, type, what);
    if (integer.too_large) throw UserError("{}: {} has an integer of 2^63 or more", in.file(), what);
    return integer.value;
  });
}

GgufValue read_value(Cursor& in, const std::string& what) {
  const auto type = static_cast<ValueType>(in.number<uint32_t>(what));
  if (type == ValueType::array) return read_array(in, what);
  if (type == ValueType::string) return in.string(what);
  if (is_float(type)) return read_float(in, type, what);
  const Integer integer = read_integer(in, type, what);
  if (type == ValueType::boolean) return integer.value != 0;
  if (integer.too_large) return static_cast<uint64_t>(integer.value);
  return integer.value;
}

void read_magic_and_version(Cursor& in) {
  const auto magic = in.take(sizeof(kMagic), "the magic number");
  if (std::memcmp(magic.data(), kMagic, sizeof(kMagic)) != 0)
    throw UserError("{}: does not begin with \"GGUF\"; it is not a GGUF file", in.file());
  const auto version = in.number<uint32_t>("the version");
  if (version != 0 && (version & 0xffff) == 0)
    throw UserError("{}: is a big-endian GGUF file, only little-endian ones are supported", in.file());
  if (version != 2 && version != 3)
    throw UserError("{}: has GGUF version {}, supported are 2 and 3; convert it with a current llama.cpp",
                    in.file(), version);
}

int64_t alignment_of(const std::map<std::string, GgufValue>& metadata, const std::string& file) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return kDefaultAlignment;
  const int64_t* value = std::get_if<int64_t>(&found->second);
  if (!value || *value <= 0 || *value > (1 << 20) || !std::has_single_bit(static_cast<uint64_t>(*value)))
    throw UserError("{}: general.alignment is not a power of two up to 2^20", file);
  return *value;
}

// Where a tensor says that its bytes are, counted from the start of the data.
struct Placement {
  uint64_t begin, bytes;
  GgufTensor* tensor;
};

std::vector<int64_t> read_shape(Cursor& in, const std::string& what) {
  const auto dims = in.number<uint32_t>(what);
  if (dims > kMaxDims)
    throw UserError("{}: {} has {} dimensions, at most {} are allowed", in.file(), what, dims, kMaxDims);
  std::vector<int64_t> shape(dims);
  for (auto dim = shape.rbegin(); dim != shape.rend(); ++dim) {  // the file counts from the innermost
    const auto value = in.number<uint64_t>(what);
    if (value > uint64_t{std::numeric_limits<int64_t>::max()})
      throw UserError("{}: {} has a dimension of {}, larger than any file", in.file(), what, value);
    *dim = static_cast<int64_t>(value);
  }
  return shape;
}

uint64_t byte_count(const GgufTensor& tensor, const GgmlTypeInfo& type, const std::string& where) {
  if (tensor.columns() % type.block_elements != 0)
    throw UserError("{}: has rows of {} elements, not a multiple of the {} elements of a {} block", where,
                    tensor.columns(), type.block_elements, type.name);
  int64_t bytes = type.block_bytes, elements = 1;
  bool overflow = __builtin_mul_overflow(bytes, tensor.columns() / type.block_elements, &bytes);
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i)
    overflow |= __builtin_mul_overflow(bytes, tensor.shape[i], &bytes);
  for (const int64_t dim : tensor.shape) overflow |= __builtin_mul_overflow(elements, dim, &elements);
  if (overflow)
    throw UserError("{}: shape [{}] is larger than any file", where, fmt::join(tensor.shape, ", "));
  return static_cast<uint64_t>(bytes);
}

Placement read_tensor_info(Cursor& in, int64_t alignment, std::map<std::string, GgufTensor>& tensors) {
  GgufTensor tensor{};
  tensor.name = in.string("a tensor's name");
  const std::string what = "tensor " + tensor.name;
  const std::string where = what + " in " + in.file();
  tensor.shape = read_shape(in, what);
  tensor.type = static_cast<GgmlType>(in.number<uint32_t>(what));
  const GgmlTypeInfo* type = find_ggml_type(tensor.type);
  if (!type)
    throw UserError("{}: has the unknown element type {}", where, static_cast<uint32_t>(tensor.type));
  const uint64_t bytes = byte_count(tensor, *type, where);
  const auto begin = in.number<uint64_t>(what);
  if (begin % static_cast<uint64_t>(alignment) != 0)
    throw UserError("{}: begins at {}, which is not a multiple of the file's alignment of {}", where, begin,
                    alignment);
  const std::string name = tensor.name;
  const auto [position, inserted] = tensors.emplace(name, std::move(tensor));
  if (!inserted) throw UserError("{}: appears twice", where);
  return {begin, bytes, &position->second};
}

void place_tensors(std::vector<Placement>& placements, std::span<const std::byte> data,
                   const std::string& file) {
  std::sort(placements.begin(), placements.end(), [](const Placement& a, const Placement& b) {
    return std::pair(a.begin, a.bytes) < std::pair(b.begin, b.bytes);
  });
  uint64_t covered = 0;
  const GgufTensor* previous = nullptr;
  for (const Placement& placement : placements) {
    const std::string& name = placement.tensor->name;
    if (placement.begin > data.size() || placement.bytes > data.size() - placement.begin)
      throw UserError(
          "tensor {} in {}: its {} bytes at {} lie outside the file's {} bytes of data; it is truncated "
          "or corrupt",
          name, file, placement.bytes, placement.begin, data.size());
    if (placement.begin < covered)
      throw UserError("{}: tensors {} and {} overlap; the file is corrupt", file, previous->name, name);
    placement.tensor->bytes = data.subspan(placement.begin, placement.bytes);
    covered = placement.begin + placement.bytes;
    previous = placement.tensor;
  }
}

}  // namespace

GgufContents parse_gguf(const base::MappedFile& file) {
  Cursor in(file);
  read_magic_and_version(in);
  const auto tensor_count = in.number<uint64_t>("the number of tensors");
  const auto metadata_count = in.number<uint64_t>("the number of metadata keys");
  GgufContents contents;
  for (uint64_t i = 0; i < metadata_count; ++i) {
    const std::string key = in.string(fmt::format("metadata key {} of {}", i + 1, metadata_count));
    GgufValue value = read_value(in, "metadata key " + key);
    if (!contents.metadata.emplace(key, std::move(value)).second)
      throw UserError("{}: metadata key {} appears twice", in.file(), key);
  }
  const int64_t alignment = alignment_of(contents.metadata, in.file());
  std::vector<Placement> placements;  // grows as tensors are read: their number may be a lie
  for (uint64_t i = 0; i < tensor_count; ++i)
    placements.push_back(read_tensor_info(in, alignment, contents.tensors));
  const uint64_t padding = -in.offset() % static_cast<uint64_t>(alignment);
  const auto data = file.bytes().subspan(in.offset() + std::min(padding, in.remaining()));
  place_tensors(placements, data, in.file());
  return contents;
}

}  // namespace ee::format
