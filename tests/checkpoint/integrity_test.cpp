// Every byte of backbone, exits and gates is what ee_config.json has checksums of, or a load says which is
// not.
#include "ee/checkpoint/integrity.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "ee/base/error.h"
#include "ee/checkpoint/verify.h"
#include "ee/exits/exit_gate.h"
#include "folders.h"

namespace ee::checkpoint {
namespace {

using base::UserError;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;
using namespace std::chrono_literals;

constexpr const char* kWeights[] = {"model.safetensors", "exits.safetensors", "gates.safetensors"};

uint64_t header_bytes(const fs::path& file) {
  uint64_t length = 0;
  std::memcpy(&length, bytes_of(file).data(), sizeof length);
  return sizeof length + length;
}

// In place, as a bad disk or a stray pointer does it.
void flip(const fs::path& file, uint64_t at, int bit) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(at));
  const auto byte = static_cast<char>(stream.get() ^ (1 << bit));
  stream.seekp(static_cast<std::streamoff>(at)).put(byte);
}

// Where in the file each tensor begins.
std::map<uint64_t, std::string> tensors_of(const fs::path& file) {
  const format::SafetensorsFile opened(file);
  std::map<const std::byte*, std::string> order;
  for (const auto& [name, view] : opened.tensors()) order[view.bytes.data()] = name;
  std::map<uint64_t, std::string> places;
  uint64_t begin = header_bytes(file);
  for (const auto& [data, name] : order) {
    places[begin] = name;
    begin += opened.at(name).bytes.size();
  }
  return places;
}

// The 64th row of an embedding of tiny_config(): none that samples read.
uint64_t unsampled_row(const fs::path& file, int64_t hidden) {
  for (const auto& [at, name] : tensors_of(file))
    if (name == "model.embed_tokens.weight") return at + static_cast<uint64_t>(64 * 4 * hidden);
  throw std::logic_error("no embedding");
}

std::string tensor_at(const fs::path& file, uint64_t at) {
  const auto places = tensors_of(file);
  return std::prev(places.upper_bound(at))->second;
}

class IntegrityTest : public ::testing::Test {
 protected:
  // The caches that a check may remember in are this test's own.
  void SetUp() override {
    for (const char* name : {"XDG_CACHE_HOME", "TMPDIR"}) {
      if (const char* value = std::getenv(name)) environment_[name] = value;
      fs::create_directory(folder_ / name);
      ::setenv(name, (folder_ / name).c_str(), 1);
    }
    exits_ = test::tiny_exits(backbone_, all_kinds());
    const int64_t inputs = backbone_.config.hidden_size + exits::kGateExtras;
    write_model_folder(ModelFolder::open(write_folder(folder_ / "plain", backbone_)), exits_, path_,
                       at::kFloat);
    for (auto& exit : exits_) exit.gate = at::rand({2, inputs});
    write_calibration(ModelFolder::open(path_), exits_, {});
    settle();
  }
  void TearDown() override {
    for (const char* name : {"XDG_CACHE_HOME", "TMPDIR"})
      environment_.contains(name) ? ::setenv(name, environment_.at(name).c_str(), 1) : ::unsetenv(name);
  }

  // As if nobody had written to the files for an hour.
  void settle() {
    for (const char* name : kWeights)
      fs::last_write_time(path_ / name, fs::file_time_type::clock::now() - 1h);
  }
  Integrity open(Check check = Check::unless_remembered) {
    return ModelFolder::open(path_, check).integrity();
  }
  void verify() {
    verify_model_folder(path_, [](const std::string&) {});
  }
  std::string refusal(Check check = Check::unless_remembered) {
    try {
      open(check);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
  config::ExitsConfig read_config() {
    return config::read_exits_config(path_ / "ee_config.json", backbone_.config.layers);
  }
  void write_config(const config::ExitsConfig& config) {
    write_text(path_ / "ee_config.json", config::write_exits_config(config));
  }
  void make_old_format() {
    config::ExitsConfig config = read_config();
    config.checksums.reset();
    write_config(config);
  }

  TempFolder folder_;
  fs::path path_ = folder_ / "model";
  model::Backbone backbone_ = test::tiny_backbone(byte_config());
  std::vector<exits::ExitHead> exits_;
  std::map<std::string, std::string> environment_;
};

TEST_F(IntegrityTest, OneFlippedBitAnywhereIsFoundByAnyLoadAndByVerify) {
  std::mt19937_64 random(7);
  for (const char* name : kWeights) {
    const fs::path file = path_ / name;
    const uint64_t first = header_bytes(file), size = fs::file_size(file);
    for (int i = 0; i < 60; ++i) {
      const uint64_t at = first + random() % (size - first);
      const int bit = static_cast<int>(random() % 8);
      EXPECT_NO_THROW(open());
      flip(file, at, bit);
      const std::string tensor = tensor_at(file, at);
      EXPECT_THAT(refusal(), AllOf(HasSubstr(tensor), HasSubstr(name), HasSubstr("damaged"))) << at;
      EXPECT_THAT([&] { verify(); }, ThrowsMessage<UserError>(HasSubstr(tensor))) << at;
      flip(file, at, bit);
    }
  }
  EXPECT_NO_THROW(verify());
}

TEST_F(IntegrityTest, AZeroedEmbeddingRowIsFound) {
  const fs::path file = path_ / "model.safetensors";
  const auto row = static_cast<size_t>(4 * backbone_.config.hidden_size);
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(unsampled_row(file, backbone_.config.hidden_size)))
      .write(std::string(row, '\0').data(), static_cast<std::streamsize>(row));
  EXPECT_THAT(refusal(), HasSubstr("model.embed_tokens.weight"));
  EXPECT_EQ(open(Check::never), Integrity::not_checked) << "samples do not see it";
}

TEST_F(IntegrityTest, WhatPassedIsReadAgainOnlyWhenItChanged) {
  EXPECT_EQ(open(), Integrity::checked);
  EXPECT_EQ(open(), Integrity::remembered);
  EXPECT_EQ(open(Check::always), Integrity::checked);
  for (const char* name : kWeights) {
    fs::last_write_time(path_ / name, fs::file_time_type::clock::now() - 30min);
    EXPECT_EQ(open(), Integrity::checked) << name;
    EXPECT_EQ(open(), Integrity::remembered) << name;
    const auto time = fs::last_write_time(path_ / name);
    fs::copy_file(path_ / name, path_ / "copy");
    fs::rename(path_ / "copy", path_ / name);
    fs::last_write_time(path_ / name, time);
    EXPECT_EQ(open(), Integrity::checked) << name << " in another inode";
    EXPECT_EQ(open(), Integrity::remembered) << name;
  }
  // The price: who puts the time back as well is found by verify only.
  const auto time = fs::last_write_time(path_ / "exits.safetensors");
  flip(path_ / "exits.safetensors", fs::file_size(path_ / "exits.safetensors") - 1, 0);
  fs::last_write_time(path_ / "exits.safetensors", time);
  EXPECT_EQ(open(), Integrity::remembered);
  EXPECT_THROW(verify(), UserError);
  EXPECT_THROW(open(), UserError) << "what verify found is remembered, too";
}

TEST_F(IntegrityTest, AFileOfThisMomentIsNotRemembered) {
  fs::last_write_time(path_ / "exits.safetensors", fs::file_time_type::clock::now());
  EXPECT_EQ(open(), Integrity::checked);
  EXPECT_EQ(open(), Integrity::checked) << "a change in the same tick of the clock would have no other time";
}

TEST_F(IntegrityTest, RemembersInACacheOrNotAtAllWhereTheFolderCannotBeWritten) {
  const auto block = [](const fs::path& file) { fs::create_directories(file.string() + ".tmp/x"); };
  block(path_ / ".ee_checked.json");
  EXPECT_EQ(open(), Integrity::checked);
  EXPECT_EQ(open(), Integrity::remembered);
  EXPECT_FALSE(fs::is_empty(folder_ / "XDG_CACHE_HOME"));
  ::setenv("XDG_CACHE_HOME", "/proc/none", 1);
  EXPECT_EQ(open(), Integrity::checked);
  EXPECT_EQ(open(), Integrity::remembered) << "in the folder for temporary files";
  ::setenv("TMPDIR", "/proc/none", 1);
  EXPECT_EQ(open(), Integrity::checked);
  EXPECT_EQ(open(), Integrity::checked);
  flip(path_ / "gates.safetensors", fs::file_size(path_ / "gates.safetensors") - 1, 0);
  EXPECT_THAT(refusal(), HasSubstr("gates.safetensors"));
}

TEST_F(IntegrityTest, AMemoryThatIsDamagedIsForgotten) {
  open();
  for (const char* text : {"", "{", "[]", R"({"files": [{"file": 3}]})", R"({"files": 3})"}) {
    write_text(path_ / ".ee_checked.json", text);
    EXPECT_EQ(open(), Integrity::checked) << text;
    EXPECT_EQ(open(), Integrity::remembered) << text;
  }
}

// As the ranks of a run on one machine do it.
TEST_F(IntegrityTest, OneOfManyReadsAndAllFindTheSame) {
  const auto open_by_many = [&] {
    std::atomic<int> checked = 0, remembered = 0, refused = 0;
    {
      std::vector<std::jthread> ranks;
      for (int i = 0; i < 6; ++i)
        ranks.emplace_back([&] {
          try {
            ++(open() == Integrity::checked ? checked : remembered);
          } catch (const UserError& error) {
            EXPECT_THAT(error.what(), HasSubstr("exits.safetensors"));
            ++refused;
          }
        });
    }
    return std::vector<int>{checked, remembered, refused};
  };
  EXPECT_THAT(open_by_many(), ::testing::ElementsAre(1, 5, 0));
  flip(path_ / "exits.safetensors", fs::file_size(path_ / "exits.safetensors") - 1, 0);
  settle();
  EXPECT_THAT(open_by_many(), ::testing::ElementsAre(0, 0, 6));
  EXPECT_THAT(refusal(), HasSubstr("found when these files were read before"));
}

TEST_F(IntegrityTest, AFolderOfTheOldFormatLoadsAndVerifySaysWhatItLacks) {
  EXPECT_EQ(missing_checksums(path_), "");
  EXPECT_EQ(missing_checksums(folder_ / "plain"), "");
  make_old_format();
  EXPECT_EQ(open(), Integrity::no_checksums);
  EXPECT_THAT(missing_checksums(path_), HasSubstr("ee-convert verify --add-checksums"));
  EXPECT_THAT([&] { verify(); }, ThrowsMessage<UserError>(HasSubstr("--add-checksums")));
  const auto say_nothing = [](const std::string&) {};
  add_checksums(path_, say_nothing);
  EXPECT_NO_THROW(verify());
  EXPECT_EQ(missing_checksums(path_), "");
  EXPECT_THAT([&] { add_checksums(path_, say_nothing); },
              ThrowsMessage<UserError>(HasSubstr("has checksums")));
}

TEST_F(IntegrityTest, CalibrationOfAnOldFolderKeepsItsFormat) {
  make_old_format();
  write_calibration(ModelFolder::open(path_), exits_, {});
  EXPECT_EQ(open(), Integrity::no_checksums);
  EXPECT_TRUE(ModelFolder::open(path_).has_gates());
}

TEST_F(IntegrityTest, GatesOfAnInterruptedCalibrationAreNoGates) {
  config::ExitsConfig config = read_config();
  config.checksums->gates.clear();  // what stands there while gates change
  write_config(config);
  EXPECT_FALSE(ModelFolder::open(path_).has_gates());
  EXPECT_THAT([&] { verify(); }, ThrowsMessage<UserError>(HasSubstr("calibration was interrupted")));
  write_calibration(ModelFolder::open(path_), exits_, {});
  EXPECT_NO_THROW(verify());
  fs::remove(path_ / "gates.safetensors");
  EXPECT_THAT([&] { verify(); }, ThrowsMessage<UserError>(HasSubstr("gates.safetensors is missing")));
}

TEST_F(IntegrityTest, AWrittenFolderTakesOverTheBackbonesChecksumsAndTheirCheck) {
  open();
  std::vector<exits::ExitHead> other = test::tiny_exits(backbone_, {all_kinds().front()});
  write_model_folder(ModelFolder::open(path_), other, folder_ / "next", at::kFloat);
  const auto before = read_config().checksums,
             after = config::read_exits_config(folder_ / "next/ee_config.json", backbone_.config.layers)
                         .checksums;
  EXPECT_EQ(before->backbone, after->backbone);
  EXPECT_EQ(ModelFolder::open(path_).backbone_digest(),
            ModelFolder::open(folder_ / "next").backbone_digest());
  fs::last_write_time(folder_ / "next/exits.safetensors", fs::file_time_type::clock::now() - 1h);
  // Only the exits are read: the backbone's file is the same inode.
  const auto time = fs::last_write_time(folder_ / "next/model.safetensors");
  flip(folder_ / "next/model.safetensors",
       unsampled_row(folder_ / "next/model.safetensors", backbone_.config.hidden_size), 0);
  fs::last_write_time(folder_ / "next/model.safetensors", time);
  EXPECT_EQ(ModelFolder::open(folder_ / "next").integrity(), Integrity::checked);
  EXPECT_THROW(ModelFolder::open(folder_ / "next", Check::always), UserError);
}

TEST_F(IntegrityTest, WhatAttachHasReadIsNotReadAgain) {
  fs::last_write_time(folder_ / "plain/model.safetensors", fs::file_time_type::clock::now() - 1h);
  write_model_folder(ModelFolder::open_backbone(folder_ / "plain"), exits_, folder_ / "next", at::kFloat);
  EXPECT_THAT(bytes_of(folder_ / "next/.ee_checked.json"), HasSubstr("model.safetensors"));
  fs::last_write_time(folder_ / "next/exits.safetensors", fs::file_time_type::clock::now() - 1h);
  EXPECT_EQ(ModelFolder::open(folder_ / "next").integrity(), Integrity::checked);
  EXPECT_EQ(ModelFolder::open(folder_ / "next").integrity(), Integrity::remembered);
}

TEST_F(IntegrityTest, TensorsThatNoIndexNamesHaveNoChecksum) {
  const fs::path sharded = write_folder(folder_ / "sharded", backbone_);
  Tensors tensors = backbone_tensors(backbone_);
  std::string map;
  for (const auto& [name, tensor] : tensors)
    map += fmt::format("{}\"{}\": \"a.safetensors\"", map.empty() ? "" : ",", name);
  write_text(sharded / "model.safetensors.index.json", "{\"weight_map\": {" + map + "}}");
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({4});
  write_tensors(sharded / "a.safetensors", tensors);
  fs::remove(sharded / "model.safetensors");
  write_model_folder(ModelFolder::open(sharded), exits_, folder_ / "next", at::kFloat);
  EXPECT_EQ(ModelFolder::open(folder_ / "next").integrity(), Integrity::checked);
}

TEST_F(IntegrityTest, AMovedModelIsNotReadAgain) {
  open();
  fs::rename(path_, folder_ / "elsewhere");
  EXPECT_EQ(ModelFolder::open(folder_ / "elsewhere").integrity(), Integrity::remembered);
}

TEST_F(IntegrityTest, AnotherBackboneIsNamedAsSuch) {
  write_tensors(folder_ / "other.safetensors", backbone_tensors(test::tiny_backbone(byte_config(), 7)));
  fs::rename(folder_ / "other.safetensors", path_ / "model.safetensors");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("another backbone"), HasSubstr("ee-convert attach")));
  EXPECT_THAT(refusal(Check::never), HasSubstr("another backbone"));
  EXPECT_THAT(refusal(), Not(HasSubstr("damaged")));
}

}  // namespace
}  // namespace ee::checkpoint
