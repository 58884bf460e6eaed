// What the tests of the emulation have in common.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "device/intrinsics.cuh"
#include "emulation/emulator.h"

namespace edgeformer {

using emulation::kAllLanes;
using emulation::Landing;
using emulation::Order;
using emulation::Schedule;

inline cudaError_t Launch(uint32_t blocks, uint32_t threads, size_t shared_bytes, std::function<void()> const& body) {
    return static_cast<cudaError_t>(emulation::Run({{blocks, 1, 1}, {threads, 1, 1}, shared_bytes}, body));
}

// One warp.
inline void Warp(std::function<void(uint32_t)> const& body) {
    EXPECT_EQ(Launch(1, 32, 0, [&] { body(threadIdx.x); }), cudaSuccess);
}

inline float* Shared() { return reinterpret_cast<float*>(SharedMemory()); }

// Sets things back after a test.
class Emulator : public testing::Test {
protected:
    void TearDown() override {
        emulation::SetSchedule({});
        emulation::SetDevice({});
        cudaGetLastError();
    }
};
// Tests whose bodies run in child processes.
class EmulatorDeathTest : public Emulator {};

inline constexpr Schedule kSchedules[] = {
    {Order::kForward, Landing::kLate, 0},
    {Order::kReverse, Landing::kEarly, 0},
    {Order::kShuffled, Landing::kLate, 1},
    {Order::kShuffled, Landing::kEarly, 2},
};

// What asynchronous copies read.
inline constexpr size_t kVectors = 4;

struct alignas(16) Source {
    uint32_t words[4 * kVectors];
};

inline Source CountingSource() {
    Source source{};
    std::iota(source.words, source.words + 4 * kVectors, 100U);
    return source;
}

}  // namespace edgeformer
