// What the test double of ONNX Runtime counts.
#pragma once

// A run whose first input value this is fails.
inline constexpr float kFailingValue = -12345.0F;

struct DoubleCounts {
    int live;          // handles that were made and not released
    int runs;          // since the process began
    int most_running;  // at once, since the last call
};

extern "C" DoubleCounts CountsOfDouble();
