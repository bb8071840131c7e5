// Linked into each program: threads of OpenMP that wait for work sleep, unless the user chose otherwise.
//
// libgomp's threads spin while they wait, for milliseconds at each barrier. Beside any other busy process
// that takes the cores from the threads that are waited for: a generation of 60 tokens took 15 s instead
// of 4. The policy is an environment variable that libgomp reads when it is loaded, before main() and before
// anything that this program could call. So the program starts itself once more with the variable set: here,
// where its libraries are mapped but have not begun, which costs a few milliseconds.
#include <alloca.h>
#include <limits.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <initializer_list>

namespace {

char policy[] = "OMP_WAIT_POLICY=passive";

bool begins_with(const char* text, const char* prefix) {
  while (*prefix != '\0' && *text == *prefix) {
    ++text;
    ++prefix;
  }
  return *prefix == '\0';
}

// What a user may have said about waiting, to libgomp or to Intel's and LLVM's libraries in its place.
bool is_policy(const char* entry) {
  for (const char* name : {"OMP_WAIT_POLICY=", "GOMP_SPINCOUNT=", "KMP_BLOCKTIME=", "KMP_LIBRARY="}) {
    if (begins_with(entry, name)) return true;
  }
  return false;
}

// Before all constructors, libc's among them: nothing but system calls and the stack may be used. Whatever
// fails leaves the program as it is, only slower beside others.
void choose_passive_wait(int, char** arguments, char** environment) {
  int count = 0;
  for (; environment[count] != nullptr; ++count) {
    if (is_policy(environment[count])) return;
  }
  if (::getauxval(AT_BASE) == 0)
    return;  // started as an argument of the dynamic loader, which is /proc/self/exe
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = '\0';
  auto** more = static_cast<char**>(alloca(sizeof(char*) * (static_cast<unsigned long>(count) + 2)));
  for (int i = 0; i < count; ++i) more[i] = environment[i];
  more[count] = policy;
  more[count + 1] = nullptr;
  ::execve(path, arguments, more);
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const before_constructors)(int, char**,
                                                                                char**) = choose_passive_wait;

}  // namespace
