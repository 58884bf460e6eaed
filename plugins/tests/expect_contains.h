// GoogleTest's substring check with the text first.
#pragma once

#include <gtest/gtest.h>

#define EXPECT_CONTAINS(text, part) EXPECT_PRED_FORMAT2(testing::IsSubstring, part, text)
