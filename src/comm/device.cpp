#include "ee/comm/device.h"

#include <dlfcn.h>

#include <charconv>
#include <filesystem>

#include "cuda_plugin.h"
#include "device_plugin.h"
#include "ee/base/error.h"

namespace ee::comm {
namespace fs = std::filesystem;
using base::UserError;

namespace {

constexpr const char* kPlugin = "libee_cuda.so";
constexpr const char* kDriver = "libcuda.so.1";

// "cuda" -> 0, "cuda:3" -> 3.
int gpu_number(const std::string& name) {
  if (name == "cuda") {
    return 0;
  }
  const std::string prefix = "cuda:";
  int number = -1;
  if (name.starts_with(prefix)) {
    const char* end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, number);
    if (error != std::errc{} || stop != end || number > 127) {
      number = -1;
    }
  }
  if (number < 0) {
    throw UserError("--device {}: expected cpu, cuda or cuda:<number of the GPU>", name);
  }
  return number;
}

fs::path find_plugin() {
  const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path();
  for (const fs::path& candidate : {folder / kPlugin, folder.parent_path() / "lib" / kPlugin}) {
    if (fs::exists(candidate)) {
      return candidate;
    }
  }
  return {};
}

// Loads the plug-in. Stays loaded: LibTorch's CUDA half cannot be unloaded.
void load_plugin(const std::string& name) {
  const fs::path plugin = find_plugin();
  if (plugin.empty()) {
    throw UserError(
        "--device {}: this build has no CUDA part ({} is neither beside the program nor in ../lib); build it "
        "on a "
        "machine with the CUDA toolkit (cmake -DEE_CUDA=ON), or use --device cpu",
        name, kPlugin);
  }
  if (dlopen(kDriver, RTLD_NOW | RTLD_LOCAL) == nullptr) {
    throw UserError(
        "--device {}: no NVIDIA GPU found (driver not loaded: {} is not there); install the driver, or use "
        "--device cpu",
        name, kDriver);
  }
  if (dlopen(plugin.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw UserError("--device {}: cannot load {}: {}; scripts/setup.sh installs the CUDA libraries it needs",
                    name, plugin.string(), dlerror());
  }
}

}  // namespace

void* find_in_cuda_plugin(const char* name) {
  void* plugin = dlopen(find_plugin().c_str(), RTLD_NOW | RTLD_NOLOAD);
  EE_CHECK(plugin != nullptr, "{} before open_device()", name);
  void* symbol = dlsym(plugin, name);
  EE_CHECK(symbol != nullptr, "{} has no {}", kPlugin, name);
  return symbol;
}

at::Device open_device(const std::string& name) {
  if (name == "cpu") {
    return at::Device(at::kCPU);
  }
  const int number = gpu_number(name);
  load_plugin(name);
  const int count = from_cuda_plugin<decltype(ee_cuda_device_count)>("ee_cuda_device_count")();
  if (count == 0) {
    throw UserError("--device {}: no NVIDIA GPU found (the driver is there, but shows none); see nvidia-smi",
                    name);
  }
  if (number >= count) {
    throw UserError("--device {}: this machine has {} GPU(s), cuda:0 to cuda:{}", name, count, count - 1);
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(number));
}

int64_t device_memory_peak(at::Device device) {
  EE_CHECK(device.is_cuda(), "memory peak of {}", device.str());
  return from_cuda_plugin<decltype(ee_cuda_memory_peak)>("ee_cuda_memory_peak")(device.index());
}

int nccl_version() { return from_cuda_plugin<decltype(ee_nccl_version)>("ee_nccl_version")(); }

}  // namespace ee::comm
