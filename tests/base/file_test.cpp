#include "ee/base/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>

#include "ee/base/error.h"

namespace ee::base {
namespace {
namespace fs = std::filesystem;

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : fs::directory_iterator(folder_)) result.push_back(entry.path().filename());
    std::ranges::sort(result);
    return result;
  }

  fs::path folder_;
};

// Makes every write beyond `bytes` fail, as a full disk does.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(FileTest, WriteThenReadGivesTheSameBytes) {
  const std::string bytes("a\0b\n", 4);
  write_file_atomically(folder_ / "x", bytes);
  EXPECT_EQ(read_text_file(folder_ / "x"), bytes);
  EXPECT_EQ(names(), std::vector<std::string>{"x"});
}

TEST_F(FileTest, FullDiskKeepsTheOldFile) {
  write_file_atomically(folder_ / "x", "old");
  {
    SmallDisk disk(100);
    EXPECT_THROW(write_file_atomically(folder_ / "x", std::string(1000, 'n')), UserError);
  }
  EXPECT_EQ(read_text_file(folder_ / "x"), "old");
  EXPECT_EQ(names(), std::vector<std::string>{"x"});
}

TEST_F(FileTest, MissingFileIsNamed) {
  try {
    read_text_file(folder_ / "absent.json");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("absent.json"), std::string::npos);
  }
  EXPECT_THROW(MappedFile(folder_ / "absent"), UserError);
  EXPECT_THROW(MappedFile{folder_}, UserError);
}

TEST_F(FileTest, MappedFileSeesTheBytesAndMoves) {
  write_file_atomically(folder_ / "x", "hello");
  MappedFile first(folder_ / "x");
  MappedFile second(std::move(first));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(second.bytes().data()), second.bytes().size()),
            "hello");
  write_file_atomically(folder_ / "empty", "");
  EXPECT_TRUE(MappedFile(folder_ / "empty").bytes().empty());
}

TEST_F(FileTest, AtomicDirectoryAppearsOnlyOnCommit) {
  {
    AtomicDirectory directory(folder_ / "out");
    write_file_atomically(directory.path() / "a", "1");
    EXPECT_FALSE(fs::exists(folder_ / "out"));
    directory.commit();
  }
  EXPECT_EQ(read_text_file(folder_ / "out/a"), "1");
  EXPECT_EQ(names(), std::vector<std::string>{"out"});
}

TEST_F(FileTest, AtomicDirectoryLeavesNothingBehindOnFailure) {
  {
    AtomicDirectory directory(folder_ / "deep/er/out/");
    write_file_atomically(directory.path() / "a", "1");
  }
  EXPECT_TRUE(fs::is_empty(folder_ / "deep/er"));
}

TEST_F(FileTest, AtomicDirectoryRemovesWhatAKilledProcessLeft) {
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicDirectory directory(folder_ / "out");
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_EQ(names(), std::vector<std::string>{fmt::format(".out.partial-{}", child)});
  const std::string alive = fmt::format(".out.partial-{}", ::getppid());
  fs::create_directory(folder_ / alive);
  fs::create_directory(folder_ / ".out.partial-notes");
  AtomicDirectory(folder_ / "out").commit();
  std::vector<std::string> expected = {alive, ".out.partial-notes", "out"};
  std::ranges::sort(expected);
  EXPECT_EQ(names(), expected);
}

TEST_F(FileTest, ReleasedPagesAreReadAgain) {
  const std::string text(5 * 4096 + 17, 'x');
  write_file_atomically(folder_ / "x", text);
  const MappedFile file(folder_ / "x");
  const auto read = [&] {
    return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  };
  EXPECT_EQ(read(), text);
  release_pages(file.bytes().subspan(100, 3 * 4096));
  EXPECT_EQ(read(), text);
  release_pages(file.bytes().subspan(0, 10));  // no whole page
}

TEST_F(FileTest, AtomicDirectoryRefusesAnExistingTarget) {
  fs::create_directory(folder_ / "out");
  EXPECT_THROW(AtomicDirectory(folder_ / "out"), UserError);
  EXPECT_THROW(AtomicDirectory(folder_ / "out/"), UserError);
}

TEST_F(FileTest, OutputsAreTriedOutBeforeTheWorkAndNothingStays) {
  write_file_atomically(folder_ / "file", "x");
  fs::create_directory(folder_ / "there");
  fs::create_symlink("nowhere", folder_ / "link");
  for (const char* name : {"new", "new/", "deep/er/new"}) {
    EXPECT_NO_THROW(check_new_output(folder_ / name)) << name;
    EXPECT_NO_THROW(check_output_folder(folder_ / name)) << name;
  }
  EXPECT_NO_THROW(check_output_folder(folder_ / "there"));
  for (const char* name : {"file", "there", "there/", "link", "file/new"})
    EXPECT_THROW(check_new_output(folder_ / name), UserError) << name;
  for (const char* name : {"file", "file/new", "file/deep/er"})
    EXPECT_THROW(check_output_folder(folder_ / name), UserError) << name;
  EXPECT_NO_THROW(check_output_file(folder_ / "file"));
  EXPECT_NO_THROW(check_output_file(folder_ / "there/new"));
  for (const char* name : {"there", "absent/new", "file/new"})
    EXPECT_THROW(check_output_file(folder_ / name), UserError) << name;
  EXPECT_THROW(check_new_output("/proc/new"), UserError) << "not even root can write there";
  EXPECT_THROW(check_output_file("/proc/new"), UserError);
  EXPECT_EQ(names(), (std::vector<std::string>{"file", "link", "there"}));
  EXPECT_TRUE(fs::is_empty(folder_ / "there"));
}

TEST_F(FileTest, LinkOrCopySharesTheBytes) {
  write_file_atomically(folder_ / "x", "hello");
  link_or_copy(folder_ / "x", folder_ / "y");
  EXPECT_EQ(read_text_file(folder_ / "y"), "hello");
  EXPECT_EQ(fs::hard_link_count(folder_ / "x"), 2u);
}

}  // namespace
}  // namespace ee::base
