// core_tests [PREFIX...] [-PREFIX...]: runs the tests whose name starts with one of the prefixes, or all, but for those of -PREFIX.
// core_tests --bits: prints the table of expected_bits.inc, computed on this machine.
#include <cstdio>
#include <cstring>
#include <exception>

#include "bits.h"
#include "check.h"

namespace {
int failures = 0;

bool chosen(const Test& test, int argc, char** argv) {
  bool all = true, named = false;
  for (int i = 1; i < argc; ++i) {
    const bool leaves_out = argv[i][0] == '-';
    const bool matches = test.name.rfind(argv[i] + (leaves_out ? 1 : 0), 0) == 0;
    if (leaves_out && matches) return false;
    all = all && leaves_out;
    named = named || matches;
  }
  return all || named;
}
}  // namespace

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

void report_failure(const char* file, int line, const char* what, const std::string& context) {
  if (++failures <= 50) std::printf("%s:%d: failed: %s%s\n", file, line, what, context.c_str());
}

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--bits") == 0) {
    print_bits();
    return 0;
  }
  int run = 0;
  for (const Test& test : tests()) {
    if (!chosen(test, argc, argv)) continue;
    const int before = failures;
    try {
      test.run();
    } catch (const std::exception& error) {
      report_failure(test.name.c_str(), 0, "threw ", error.what());
    }
    std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", test.name.c_str());
    std::fflush(stdout);
    ++run;
  }
  std::printf("%d tests, %d failed checks\n", run, failures);
  return failures == 0 && run > 0 ? 0 : 1;
}
