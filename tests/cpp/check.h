// A minimal test framework. TEST(name) { CHECK(...); } registers itself; main.cpp runs all.
#pragma once

#include <string>
#include <vector>

struct Test {
  std::string name;
  void (*run)();
};

// Every TEST of the program, in order of registration.
std::vector<Test>& tests();

// Counts and prints a failed check.
void report_failure(const char* file, int line, const char* what, const std::string& context = {});

struct Registered {
  Registered(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

#define TEST(name)                                               \
  static void test_##name();                                     \
  static const Registered registered_##name{#name, test_##name}; \
  static void test_##name()

#define CHECK_WITH(condition, context)                                         \
  do {                                                                         \
    if (!(condition)) report_failure(__FILE__, __LINE__, #condition, context); \
  } while (false)

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) report_failure(__FILE__, __LINE__, #condition); \
  } while (false)

// The expression throws an Error whose message contains the fragment.
#define CHECK_THROWS(expression, Error, fragment)                                \
  do {                                                                           \
    try {                                                                        \
      static_cast<void>(expression);                                             \
      report_failure(__FILE__, __LINE__, #expression " did not throw");          \
    } catch (const Error& error) {                                               \
      if (std::string(error.what()).find(fragment) == std::string::npos)         \
        report_failure(__FILE__, __LINE__, #expression " said: ", error.what()); \
    }                                                                            \
  } while (false)
