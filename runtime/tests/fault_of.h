// The fault that code ends in.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "fault.h"

template <class Body>
std::string FaultOf(Body&& body) {
    try {
        body();
    } catch (edgeformer::Fault const& fault) {
        return fault.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return "";
}
