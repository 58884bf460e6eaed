// An expectation of a fault by its code and the values that its message has to name.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "fault.h"

namespace edgeformer {

inline void ExpectParts(std::string const& message, std::initializer_list<char const*> parts) {
    for (char const* part : parts) {
        EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
    }
}

}  // namespace edgeformer

#define EXPECT_FAULT(statement, ...)                          \
    try {                                                     \
        static_cast<void>(statement);                         \
        ADD_FAILURE() << "no fault of " #statement;           \
    } catch (edgeformer::Fault const& fault) {                \
        edgeformer::ExpectParts(fault.what(), {__VA_ARGS__}); \
    }
