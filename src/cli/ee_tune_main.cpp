#include "ee/base/program.h"

int main() {
  return ee::base::run_program("ee-tune", [] { return 0; });
}
