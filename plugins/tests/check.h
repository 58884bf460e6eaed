// A test framework of one header. TEST(name) { ... } registers a test; CHECK and its kin report a failure with both
// values and go on. GoogleTest is not on the machines this has to build on, and nothing more is needed.
#pragma once

#include <cstdio>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

namespace edgeformer::check {

struct Test {
    char const* name;
    void (*body)();
};

inline std::vector<Test>& Tests() {
    static std::vector<Test> tests;
    return tests;
}

inline int failures = 0;
// What the running test is working on; printed with a failure.
inline std::string context;

inline bool Register(char const* name, void (*body)()) {
    Tests().push_back({name, body});
    return true;
}

inline void Fail(char const* file, int line, std::string const& message) {
    ++failures;
    std::printf("%s:%d: %s%s%s\n", file, line, message.c_str(), context.empty() ? "" : "\n    in ", context.c_str());
}

template <class Left, class Right>
void Equal(char const* file, int line, char const* text, Left const& left, Right const& right) {
    if (!(left == right)) {
        std::ostringstream message;
        message << text << ": " << left << " != " << right;
        Fail(file, line, message.str());
    }
}

inline void Contains(char const* file, int line, std::string const& text, std::string const& part) {
    if (text.find(part) == std::string::npos) {
        Fail(file, line, "\"" + text + "\" does not contain \"" + part + "\"");
    }
}

// Runs the tests whose names contain argv[1], all without it. Returns the exit code: no test at all is a failure.
inline int Main(int argc, char** argv) {
    std::string const filter = argc > 1 ? argv[1] : "";
    int run = 0;
    for (Test const& test : Tests()) {
        if (std::string(test.name).find(filter) == std::string::npos) {
            continue;
        }
        int const before = failures;
        context.clear();
        try {
            test.body();
        } catch (std::exception const& error) {
            Fail(test.name, 0, std::string("exception: ") + error.what());
        }
        ++run;
        std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", test.name);
    }
    std::printf("%d tests, %d failed checks\n", run, failures);
    return run > 0 && failures == 0 ? 0 : 1;
}

}  // namespace edgeformer::check

#define TEST(name)                                                                  \
    static void name();                                                             \
    static bool const registered_##name = edgeformer::check::Register(#name, name); \
    static void name()

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) edgeformer::check::Fail(__FILE__, __LINE__, #condition " is false"); \
    } while (false)

#define CHECK_EQ(left, right) edgeformer::check::Equal(__FILE__, __LINE__, #left " == " #right, left, right)

#define CHECK_CONTAINS(text, part) edgeformer::check::Contains(__FILE__, __LINE__, text, part)
