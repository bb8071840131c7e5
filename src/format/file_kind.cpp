#include "ee/format/file_kind.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "ee/base/error.h"

namespace ee::format {

using base::UserError;

namespace {

constexpr std::size_t kHead = 1 << 16;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kWhatIsRead =
    "What is read: UTF-8 text, and rows with \"text\" or \"tokens\" in .jsonl, .ndjson or .json files; both "
    "also as .gz or .zst";

constexpr std::string_view kTable =
    "a table; write it as JSON Lines with a key \"text\" (Python: pandas' to_json(orient=\"records\", "
    "lines=True), or to_json of datasets)";
constexpr std::string_view kArchive = "an archive; unpack it";
constexpr std::string_view kCompressed =
    "packed in a way that is not read; unpack it, or pack it with gzip or zstd";
constexpr std::string_view kDocument = "a document with layout; export its text";
constexpr std::string_view kMedia = "not text but a picture, sound or film";
constexpr std::string_view kTokens =
    "binary tokens of another program; write them as JSON Lines with a key \"tokens\"";
constexpr std::string_view kTensors = "tensors or a program's own binary data";
constexpr std::string_view kNotebook = "a notebook; export its text (jupyter nbconvert)";
constexpr std::string_view kUtf16 = "UTF-16 or UTF-32 text; convert it: iconv -f UTF-16 -t UTF-8";
constexpr std::string_view kBinary =
    "binary data, or text in UTF-16 or UTF-32 (it has bytes 0); convert it to UTF-8 or leave it out";

struct Named {
  std::string_view extension, what;
};

constexpr auto kRefusedNames = std::to_array<Named>({
    {".parquet", kTable},       {".arrow", kTable},     {".feather", kTable},  {".orc", kTable},
    {".avro", kTable},          {".csv", kTable},       {".tsv", kTable},      {".xls", kTable},
    {".xlsx", kTable},          {".ods", kTable},       {".db", kTable},       {".sqlite", kTable},
    {".zip", kArchive},         {".tar", kArchive},     {".tgz", kArchive},    {".7z", kArchive},
    {".rar", kArchive},         {".xz", kCompressed},   {".bz2", kCompressed}, {".lz4", kCompressed},
    {".lzma", kCompressed},     {".br", kCompressed},   {".z", kCompressed},   {".pdf", kDocument},
    {".doc", kDocument},        {".docx", kDocument},   {".odt", kDocument},   {".rtf", kDocument},
    {".ppt", kDocument},        {".pptx", kDocument},   {".epub", kDocument},  {".png", kMedia},
    {".jpg", kMedia},           {".jpeg", kMedia},      {".gif", kMedia},      {".webp", kMedia},
    {".bmp", kMedia},           {".tif", kMedia},       {".tiff", kMedia},     {".ico", kMedia},
    {".mp3", kMedia},           {".wav", kMedia},       {".flac", kMedia},     {".ogg", kMedia},
    {".mp4", kMedia},           {".bin", kTokens},      {".idx", kTokens},     {".npy", kTokens},
    {".npz", kTokens},          {".tfrecord", kTokens}, {".pt", kTensors},     {".pth", kTensors},
    {".pkl", kTensors},         {".pickle", kTensors},  {".h5", kTensors},     {".hdf5", kTensors},
    {".safetensors", kTensors}, {".gguf", kTensors},    {".ipynb", kNotebook},
});

struct Signature {
  std::size_t offset;
  std::string_view bytes, what;
};

using namespace std::string_view_literals;
constexpr auto kSignatures = std::to_array<Signature>({
    {0, "SQLite format 3\0"sv, kTable},
    {0, "PK\x03\x04"sv, kArchive},
    {0, "7z\xBC\xAF\x27\x1C"sv, kArchive},
    {0, "Rar!\x1A\x07"sv, kArchive},
    {0,
     "\xFD"sv
     "7zXZ\0"sv,
     kCompressed},
    {4, "1AY&SY"sv, kCompressed},  // behind "BZh" and a digit
    {0, "\x04\x22\x4D\x18"sv, kCompressed},
    {0, "\x1F\x8B"sv, kCompressed},          // gzip within gzip or zstd
    {0, "\x28\xB5\x2F\xFD"sv, kCompressed},  // zstd within gzip or zstd
    {0, "%PDF-"sv, kDocument},
    {0, "{\\rtf"sv, kDocument},
    {0, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, kDocument},  // Word, Excel and PowerPoint before 2007
    {0, "\x89PNG\r\n\x1A\n"sv, kMedia},
    {0, "\xFF\xD8\xFF"sv, kMedia},
    {0, "MMIDIDX\0"sv, kTokens},
    {0, "\x93NUMPY"sv, kTokens},
    {0, "\x89HDF\r\n\x1A\n"sv, kTensors},
    {0, "\xFF\xFE"sv, kUtf16},  // of UTF-32, too
    {0, "\xFE\xFF"sv, kUtf16},
    {0, "\0\0\xFE\xFF"sv, kUtf16},
});

// Words that a text may begin with: what is behind them has to be binary, too.
constexpr auto kWords = std::to_array<Signature>({
    {0, "PAR1"sv, kTable},
    {0, "ARROW1"sv, kTable},
    {0, "Obj"sv, kTable},
    {257, "ustar"sv, kArchive},
    {0, "GIF8"sv, kMedia},
    {0, "GGUF"sv, kTensors},
});

[[noreturn]] void refuse(const UnpackedFile& file, std::string_view what) {
  throw UserError("{} is not read: it is {}. {}", file.path().string(), what, kWhatIsRead);
}

std::string lower_case(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

// ".jsonl" of "a.JSONL", "a.jsonl.gz" and "a.jsonl.zst".
std::string extension_of(const std::filesystem::path& path) {
  std::filesystem::path name = lower_case(path.filename().string());
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  return name.extension().string();
}

bool has(std::string_view head, const Signature& signature) {
  return head.size() >= signature.offset && head.substr(signature.offset).starts_with(signature.bytes);
}

bool is_control(char byte) {
  return static_cast<unsigned char>(byte) < 0x20 && byte != '\t' && byte != '\n' && byte != '\r';
}

void check_signatures(UnpackedFile& file) {
  const std::string_view head = file.head(kHead);
  for (const Signature& signature : kSignatures)
    if (has(head, signature)) refuse(file, signature.what);
  if (std::ranges::none_of(head, is_control)) return;
  for (const Signature& word : kWords)
    if (has(head, word)) refuse(file, word.what);
}

void check_not_binary(UnpackedFile& file) {
  if (file.head(kHead).find('\0') != std::string_view::npos) refuse(file, kBinary);
}

// Follows JSON until the first object's own keys say enough; what is cut off behind them does not matter.
class KeyFinder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool found() const { return found_; }

  bool null() override { return inside_; }
  bool boolean(bool) override { return inside_; }
  bool number_integer(number_integer_t) override { return inside_; }
  bool number_unsigned(number_unsigned_t) override { return inside_; }
  bool number_float(number_float_t, const string_t&) override { return inside_; }
  bool string(string_t&) override { return inside_; }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override {
    inside_ = true;
    ++depth_;
    return true;
  }
  bool key(string_t& name) override {
    found_ = depth_ == 1 && (name == "text" || name == "tokens" || name == "prompt");
    return !found_;
  }
  bool end_object() override { return --depth_ > 0; }
  bool start_array(std::size_t) override {
    depth_ += inside_ ? 1 : 0;
    return inside_ || !std::exchange(in_list_, true);
  }
  bool end_array() override { return inside_ && --depth_ > 0; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  int depth_ = 0;  // of what is open in the first object, with it
  bool inside_ = false, in_list_ = false, found_ = false;
};

bool begins_with_a_record(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (!text.starts_with('{') && !text.starts_with('[')) return false;
  KeyFinder finder;
  nlohmann::json::sax_parse(text, &finder, nlohmann::json::input_format_t::json, /*strict=*/false);
  return finder.found();
}

}  // namespace

FileKind find_kind(UnpackedFile& file) {
  const std::string extension = extension_of(file.path());
  check_signatures(file);
  const auto refused = std::ranges::find(kRefusedNames, extension, &Named::extension);
  if (refused != kRefusedNames.end()) refuse(file, refused->what);
  check_not_binary(file);
  for (const char* name : {".json", ".jsonl", ".jsonlines", ".ndjson"})
    if (extension == name) return FileKind::records;
  return begins_with_a_record(file.head(kHead)) ? FileKind::records : FileKind::text;
}

void check_is_text(UnpackedFile& file) {
  check_signatures(file);
  check_not_binary(file);
}

}  // namespace ee::format
