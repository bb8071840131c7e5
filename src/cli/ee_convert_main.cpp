#include "ee/base/program.h"

int main() {
  return ee::base::run_program("ee-convert", [] { return 0; });
}
