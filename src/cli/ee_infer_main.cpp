#include "ee/base/program.h"

int main() {
  return ee::base::run_program("ee-infer", [] { return 0; });
}
