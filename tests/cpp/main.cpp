// core_tests [PREFIX...]: runs the tests whose name starts with one of the prefixes, or all.
// core_tests --bits: prints the table of expected_bits.inc, computed on this machine.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>

#include "bits.h"
#include "check.h"

namespace {
int failures = 0;

bool chosen(const Test& test, int argc, char** argv) {
  return argc == 1 || std::any_of(argv + 1, argv + argc, [&](const char* prefix) { return test.name.rfind(prefix, 0) == 0; });
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
