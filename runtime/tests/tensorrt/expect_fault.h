// An expectation of a fault by its code and the values that its message has to name.
#pragma once

#include <initializer_list>
#include <string>

#include "expect_contains.h"
#include "fault_of.h"

inline void ExpectParts(std::string const& message, std::initializer_list<std::string> parts) {
    for (std::string const& part : parts) {
        EXPECT_CONTAINS(message, part);
    }
}

#define EXPECT_FAULT(statement, ...) ExpectParts(FaultOf([&] { static_cast<void>(statement); }), {__VA_ARGS__})
