// How ranks that cannot meet end: each wrong address within seconds, on every rank, naming address, port and
// what to do.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <filesystem>
#include <memory>

#include "ee/base/temporary_failure.h"
#include "ee/comm/spawn.h"
#include "support/process.h"

namespace ee::comm {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kWithin = seconds(20);  // about 10 on an idle machine

// Somebody else's server: accepts connections and says nothing.
class SilentServer {
 public:
  SilentServer() : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    socklen_t size = sizeof address;
    ::bind(descriptor_, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(descriptor_, 16);
    ::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~SilentServer() { ::close(descriptor_); }
  int port() const { return port_; }

 private:
  int descriptor_, port_ = 0;
};

bool has_ipv6() {
  const int descriptor = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  const bool bound = ::bind(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(descriptor);
  return bound;
}

// An address of this machine that others reach; where it has none, the loopback's.
std::string outer_address() {
  std::string found = "127.0.0.1";
  ifaddrs* interfaces = nullptr;
  if (::getifaddrs(&interfaces) != 0) return found;
  for (const ifaddrs* entry = interfaces; entry; entry = entry->ifa_next) {
    if (!entry->ifa_addr || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    if (entry->ifa_addr->sa_family != AF_INET) continue;
    char text[NI_MAXHOST] = "";
    if (::getnameinfo(entry->ifa_addr, sizeof(sockaddr_in), text, sizeof text, nullptr, 0, NI_NUMERICHOST) ==
        0)
      found = text;
  }
  ::freeifaddrs(interfaces);
  return found;
}

class Meet : public ::testing::Test {
 protected:
  Meet() : folder_(fs::path(::testing::TempDir()) / ("ee-meet-" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Meet() override {
    ranks_.clear();
    fs::remove_all(folder_);
  }

  // One more process of ee_comm_worker with these variables.
  void start(const test::Environment& variables, const std::string& scenario = "leave_in_turns") {
    ranks_.push_back(std::make_unique<test::Process>(
        EE_BUILD_DIR "/tests/ee_comm_worker",
        std::vector<std::string>{scenario, folder_.string(), "rendezvous=60000"},
        folder_ / ("output-" + std::to_string(ranks_.size())), variables));
  }
  void start_ranks(const test::Environment& changes, int count = 2) {
    for (int rank = 0; rank < count; ++rank) {
      auto variables = test::torchrun_variables(rank, count, free_port_);
      for (const auto& [name, value] : changes) variables[name] = value;
      start(variables);
    }
  }
  // All end within the limit, with this exit code and message.
  void expect_end(int exit_code, const ::testing::Matcher<std::string>& message) {
    for (const auto& rank : ranks_) {
      EXPECT_TRUE(rank->ends_within(kWithin)) << rank->output();
      rank->signal(SIGKILL);
      const auto finished = rank->wait();
      EXPECT_EQ(finished.exit_code, exit_code) << finished.output;
      EXPECT_THAT(finished.output, message);
    }
    ranks_.clear();
  }

  const fs::path folder_;
  const int free_port_ = free_port();
  std::vector<std::unique_ptr<test::Process>> ranks_;
};

TEST_F(Meet, OverIpv6) {
  if (!has_ipv6()) {
    start_ranks({{"MASTER_ADDR", "::1"}});
    return expect_end(2, HasSubstr("MASTER_ADDR"));
  }
  for (const char* address : {"::1", "[::1]"}) {
    for (int rank = 0; rank < 3; ++rank) {
      auto variables = test::torchrun_variables(rank, 3, free_port_);
      variables["MASTER_ADDR"] = address;
      start(variables, "collectives");
    }
    expect_end(0, "");
  }
}

TEST_F(Meet, ByAName) {
  start_ranks({{"MASTER_ADDR", "localhost"}}, 3);
  expect_end(0, "");
}

// As some operators of Kubernetes tell rank 0 "localhost" and the others its service's name.
TEST_F(Meet, RankZeroIsToldLocalhostAndTheOthersItsAddress) {
  for (int rank = 0; rank < 2; ++rank) {
    auto variables = test::torchrun_variables(rank, 2, free_port_);
    variables["LOCAL_RANK"] = "0";
    variables["LOCAL_WORLD_SIZE"] = "1";
    variables["MASTER_ADDR"] = rank == 0 ? "localhost" : outer_address();
    start(variables, "collectives");
  }
  expect_end(0, "");
}

TEST_F(Meet, NameThatDoesNotResolve) {
  start_ranks({{"MASTER_ADDR", "no-such-host.invalid"}});
  expect_end(2, AllOf(HasSubstr("MASTER_ADDR no-such-host.invalid (port " + std::to_string(free_port_) + ")"),
                      HasSubstr("does not resolve"), HasSubstr("set MASTER_ADDR on all ranks")));
}

TEST_F(Meet, AddressOfAnotherMachine) {
  start(test::Environment{{"RANK", "0"},
                          {"WORLD_SIZE", "2"},
                          {"LOCAL_RANK", "0"},
                          {"LOCAL_WORLD_SIZE", "1"},
                          {"MASTER_ADDR", "198.51.100.7"},
                          {"MASTER_PORT", "29511"}});
  expect_end(2, AllOf(HasSubstr("198.51.100.7 is no address of the machine of rank 0"), HasSubstr("29511"),
                      HasSubstr("set MASTER_ADDR on all ranks")));
}

TEST_F(Meet, PortThatSomebodyHas) {
  const SilentServer somebody;
  const std::string port = std::to_string(somebody.port());
  start_ranks({{"MASTER_PORT", port}});
  expect_end(2, AllOf(HasSubstr(port), HasSubstr("MASTER_PORT")));
}

TEST_F(Meet, NobodyListensIsSaidWhileTheyWait) {
  start(test::torchrun_variables(1, 2, free_port_));
  EXPECT_TRUE(ranks_[0]->wait_for("rank 1 waits for rank 0 at 127.0.0.1:" + std::to_string(free_port_)));
  EXPECT_THAT(ranks_[0]->output(), HasSubstr("Connection refused"));
  start(test::torchrun_variables(0, 2, free_port_));  // comes late, and that is no mistake
  expect_end(0, ::testing::_);
}

TEST_F(Meet, OneOfTwoProcessesOfOneRankIsRefused) {
  for (const int rank : {0, 1, 1}) start(test::torchrun_variables(rank, 3, free_port_));
  size_t refused = 1;
  const auto deadline = std::chrono::steady_clock::now() + kWithin;
  while (!ranks_[refused]->ends_within(milliseconds(20)) && std::chrono::steady_clock::now() < deadline)
    refused = 3 - refused;  // the other one
  ranks_[refused]->signal(SIGKILL);
  const auto finished = ranks_[refused]->wait();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr("a rank 1 has come already"));
  ranks_.erase(ranks_.begin() + static_cast<std::ptrdiff_t>(refused));
  start(test::torchrun_variables(2, 3, free_port_));
  expect_end(0, ::testing::_);
}

TEST_F(Meet, RankOfAnotherRun) {
  start(test::torchrun_variables(0, 2, free_port_));
  start(test::torchrun_variables(2, 4, free_port_));
  EXPECT_TRUE(ranks_[1]->ends_within(kWithin));
  const auto other = ranks_[1]->wait();
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.output, HasSubstr("another run uses the port"));
}

// As Kubernetes' operators start them, but both on this machine.
TEST_F(Meet, RanksThatAreTakenToBeAloneAndAreNot) {
  for (const char* rank : {"0", "1"})
    start({{"RANK", rank},
           {"WORLD_SIZE", "2"},
           {"MASTER_ADDR", "127.0.0.1"},
           {"MASTER_PORT", std::to_string(free_port_)}});
  expect_end(2, AllOf(HasSubstr("ranks 0 and 1 are both on "), HasSubstr("set LOCAL_RANK"),
                      HasSubstr("LOCAL_WORLD_SIZE")));
  for (const char* rank : {"0", "1"})  // said to be alone: as in two containers of one name
    start({{"RANK", rank},
           {"WORLD_SIZE", "2"},
           {"LOCAL_RANK", "0"},
           {"LOCAL_WORLD_SIZE", "1"},
           {"MASTER_ADDR", "127.0.0.1"},
           {"MASTER_PORT", std::to_string(free_port_)}});
  expect_end(0, "");
}

TEST_F(Meet, UnknownNetworkInterface) {
  start_ranks({{"GLOO_SOCKET_IFNAME", "nonesuch0"}});
  expect_end(2, AllOf(HasSubstr("GLOO_SOCKET_IFNAME=nonesuch0"), HasSubstr("lo")));
}

// What sbatch gives its script, with tasks that nobody has started.
TEST_F(Meet, BatchScriptIsAlone) {
  start({{"SLURM_JOB_ID", "7"},
         {"SLURM_PROCID", "0"},
         {"SLURM_NTASKS", "4"},
         {"SLURM_LOCALID", "0"},
         {"SLURM_NODEID", "0"},
         {"SLURM_NNODES", "2"},
         {"SLURM_TASKS_PER_NODE", "2(x2)"}});
  expect_end(0, "");
}

}  // namespace
}  // namespace ee::comm
