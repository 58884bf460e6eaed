// The threads of a block: who runs when, barriers, shared memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "emulation/emulator_fixture.h"

namespace edgeformer {
namespace {

TEST_F(Emulator, EveryThreadOfEveryBlockRunsOnce) {
    for (Schedule const& schedule : kSchedules) {
        emulation::SetSchedule(schedule);
        std::vector<int> runs(6 * 70, 0);
        EXPECT_EQ(Launch(6, 70, 0, [&] { ++runs[blockIdx.x * blockDim.x + threadIdx.x]; }), cudaSuccess);
        EXPECT_EQ(runs, std::vector<int>(6 * 70, 1));
    }
}

TEST_F(Emulator, IndicesCountAlongXThenYThenZ) {
    std::vector<uint32_t> seen(2 * 3 * 4 * 5 * 2 * 2, 0);
    emulation::LaunchShape const shape{{2, 3, 4}, {5, 2, 2}};
    emulation::Run(shape, [&] {
        uint32_t const block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        uint32_t const thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        ++seen[block * 20 + thread];
    });
    EXPECT_EQ(seen, std::vector<uint32_t>(seen.size(), 1));
}

// Thread numbers in the order in which they start.
std::vector<uint32_t> StartOrder(Schedule const& schedule) {
    emulation::SetSchedule(schedule);
    std::vector<uint32_t> order;
    Launch(3, 64, 0, [&] {
        emulation::Unwatched const unwatched;  // threads that share a vector
        order.push_back(blockIdx.x * 64 + threadIdx.x);
    });
    return order;
}

TEST_F(Emulator, SchedulesOrderThreadsAndBlocks) {
    std::vector<uint32_t> expected(3 * 64);
    std::iota(expected.begin(), expected.end(), 0U);
    EXPECT_EQ(StartOrder({Order::kForward}), expected);
    std::reverse(expected.begin(), expected.end());
    EXPECT_EQ(StartOrder({Order::kReverse}), expected);
    std::vector<uint32_t> shuffled = StartOrder({Order::kShuffled, Landing::kLate, 5});
    EXPECT_EQ(StartOrder({Order::kShuffled, Landing::kLate, 5}), shuffled);
    EXPECT_NE(StartOrder({Order::kShuffled, Landing::kLate, 6}), shuffled);
    std::sort(shuffled.begin(), shuffled.end());
    std::reverse(expected.begin(), expected.end());
    EXPECT_EQ(shuffled, expected);
}

TEST_F(Emulator, AShuffledScheduleLetsWarpsRunAhead) {
    emulation::SetSchedule({Order::kShuffled, Landing::kLate, 1});
    int32_t steps[2] = {0, 0};
    int32_t lead = 0;
    Launch(8, 64, 0, [&] {
        for (int32_t i = 0; i < 20; ++i) {
            __syncwarp();
            emulation::Unwatched const unwatched;
            if (threadIdx.x % 32 == 0) {
                ++steps[threadIdx.x / 32];
                lead = std::max(lead, std::abs(steps[0] - steps[1]));
            }
        }
    });
    EXPECT_GE(lead, 8);
}

TEST_F(Emulator, BarrierSeparatesWritesFromReads) {
    for (Schedule const& schedule : kSchedules) {
        emulation::SetSchedule(schedule);
        std::vector<float> read(64, 0.F);
        Launch(1, 64, 64 * sizeof(float), [&] {
            for (uint32_t round = 0; round < 3; ++round) {
                Shared()[threadIdx.x] = static_cast<float>(threadIdx.x + round);
                __syncthreads();
                read[threadIdx.x] = Shared()[63 - threadIdx.x];
                __syncthreads();
            }
        });
        EXPECT_EQ(read[0], 65.F);
        EXPECT_EQ(read[63], 2.F);
    }
}

TEST_F(Emulator, SharedMemoryIsFreshAlignedAndPoisonedForEveryBlock) {
    std::vector<int> wrong(3, 0);
    Launch(3, 1, 100, [&] {
        wrong[blockIdx.x] += static_cast<int>(reinterpret_cast<uintptr_t>(SharedMemory()) % 128 != 0);
        for (int32_t i = 0; i < 100; ++i) {
            wrong[blockIdx.x] += static_cast<int>(SharedMemory()[i] != 0xff);
            SharedMemory()[i] = 1;
        }
    });
    EXPECT_EQ(wrong, std::vector<int>(3, 0));
}

TEST_F(EmulatorDeathTest, BarriersThatSomeThreadsNeverReachAbort) {
    EXPECT_DEATH(Launch(1, 64, 0,
                        [] {
                            if (threadIdx.x < 32) {
                                __syncthreads();
                            }
                        }),
                 "waits in __syncthreads for threads that never come");
    EXPECT_DEATH(Warp([](uint32_t lane) {
                     if (lane < 16) {
                         __shfl_xor_sync(kAllLanes, 0.F, 1);
                     }
                 }),
                 "waits in __shfl_xor_sync for threads that never come");
    EXPECT_DEATH(Warp([](uint32_t lane) {
                     if (lane == 0) {
                         __syncwarp();
                     } else {
                         __shfl_xor_sync(kAllLanes, 0.F, 1);
                     }
                 }),
                 "different operations: __syncwarp and __shfl_xor_sync");
    EXPECT_DEATH(Warp([](uint32_t) { __syncwarp(1); }), "not in the mask of its own warp operation");
    EXPECT_DEATH(SharedMemory(), "outside a kernel");
}

#if defined(__SANITIZE_ADDRESS__)
TEST_F(EmulatorDeathTest, SharedMemoryPastTheRequestedSizeIsCaught) {
    EXPECT_DEATH(Launch(1, 1, 16 * sizeof(float), [] { Shared()[16] = 1.F; }), "heap-buffer-overflow");
    EXPECT_DEATH(Launch(1, 1, 16 * sizeof(float), [] { Shared()[-1] = 1.F; }), "heap-buffer-overflow");
    Launch(1, 1, 16 * sizeof(float), [] { Shared()[15] = 1.F; });
}
#else
TEST_F(Emulator, AMissingBarrierReadsNan) {
    float read = 0.F;
    Launch(1, 64, 64 * sizeof(float), [&] {
        emulation::Unwatched const unwatched;  // a race, for ThreadSanitizer
        Shared()[threadIdx.x] = 1.F;
        if (threadIdx.x == 0) {
            read = Shared()[63];
        }
    });
    EXPECT_TRUE(std::isnan(read));
}
#endif

}  // namespace
}  // namespace edgeformer
