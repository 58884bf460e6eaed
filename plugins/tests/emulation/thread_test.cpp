// Operations of a warp, and asynchronous copies.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "emulation/emulator_fixture.h"

namespace edgeformer {
namespace {

// --- operations of a warp ---

TEST_F(Emulator, ShufflesExchangeLanesWithinAWarp) {
    for (Schedule const& schedule : kSchedules) {
        emulation::SetSchedule(schedule);
        std::vector<float> exclusive_or(64);
        std::vector<int64_t> indexed(64);
        std::vector<uint32_t> down(64);
        Launch(1, 64, 0, [&] {
            uint32_t const own = threadIdx.x;
            exclusive_or[own] = __shfl_xor_sync(kAllLanes, static_cast<float>(own), 5);
            indexed[own] = __shfl_sync(kAllLanes, int64_t{own} << 32, static_cast<int32_t>(own * 7 + 3));
            down[own] = __shfl_down_sync(kAllLanes, own, 4);
        });
        for (uint32_t thread = 0; thread < 64; ++thread) {
            uint32_t const warp = thread / 32 * 32;
            EXPECT_EQ(exclusive_or[thread], static_cast<float>(thread ^ 5U));
            EXPECT_EQ(indexed[thread], static_cast<int64_t>(warp + (thread * 7 + 3) % 32) << 32);
            EXPECT_EQ(down[thread], thread % 32 < 28 ? thread + 4 : thread);
        }
    }
}

TEST_F(Emulator, VotesCountTheLanesOfTheMask) {
    uint32_t const odd = 0xaaaaaaaaU;
    std::vector<uint32_t> ballots(32, 0);
    std::vector<int32_t> any(32, 0);
    std::vector<int32_t> all(32, 0);
    Warp([&](uint32_t lane) {
        if (lane % 2 == 1) {
            ballots[lane] = __ballot_sync(odd, static_cast<int32_t>(lane < 8));
            any[lane] = __any_sync(odd, static_cast<int32_t>(lane == 0)) + 2;
            all[lane] = __all_sync(odd, 1) + 2;
        }
    });
    EXPECT_EQ(ballots[31], 0xaaU);
    EXPECT_EQ(ballots[30], 0U);
    EXPECT_EQ(any[1], 2);
    EXPECT_EQ(all[1], 3);
}

TEST_F(EmulatorDeathTest, ReadingALaneOutsideTheMaskAborts) {
    EXPECT_DEATH(Warp([](uint32_t lane) {
                     if (lane < 16) {
                         __shfl_sync(0xffffU, 0.F, 16);
                     }
                 }),
                 "reads from a lane that is not in its mask");
}

// --- asynchronous copies ---

TEST_F(Emulator, CopiesLandWhenTheScheduleSays) {
    Source const source = CountingSource();
    for (Landing const landing : {Landing::kLate, Landing::kEarly}) {
        emulation::SetSchedule({Order::kForward, landing, 0});
        std::vector<uint32_t> seen;
        Launch(1, 1, sizeof(Source), [&] {
            auto const* shared = reinterpret_cast<uint32_t*>(SharedMemory());
            for (size_t i = 0; i < 3; ++i) {
                CopyAsync(SharedMemory() + 16 * i, source.words + 4 * i, i != 1);
                CommitCopies();
            }
            auto look = [&] { seen.insert(seen.end(), {shared[3], shared[7], shared[11]}); };
            look();
            WaitCopies<2>();
            look();
            WaitCopies<1>();
            look();
            WaitCopies<0>();
            look();
        });
        uint32_t const unset = 0xffffffffU;
        std::vector<uint32_t> const late{unset, unset, unset, 103, unset, unset, 103, 0, unset, 103, 0, 111};
        std::vector<uint32_t> const early{103, 0, 111, 103, 0, 111, 103, 0, 111, 103, 0, 111};
        EXPECT_EQ(seen, landing == Landing::kLate ? late : early);
    }
}

TEST_F(Emulator, AbsentCopiesReadNothing) {
    alignas(16) unsigned char const* nowhere = nullptr;
    for (Landing const landing : {Landing::kLate, Landing::kEarly}) {
        emulation::SetSchedule({Order::kForward, landing, 0});
        float read = NAN;
        Launch(1, 1, 16, [&] {
            CopyAsync(SharedMemory(), nowhere, false);
            CommitCopies();
            WaitCopies<0>();
            read = Shared()[3];
        });
        EXPECT_EQ(read, 0.F);
    }
}

TEST_F(Emulator, GroupsWithoutCopiesCountAndMayBeLeft) {
    Source const source = CountingSource();
    uint32_t before = 0;
    uint32_t after = 0;
    Launch(1, 1, 16, [&] {
        CopyAsync(SharedMemory(), source.words, true);
        CommitCopies();
        CommitCopies();
        WaitCopies<2>();
        before = *reinterpret_cast<uint32_t*>(SharedMemory());
        WaitCopies<1>();
        after = *reinterpret_cast<uint32_t*>(SharedMemory());
    });
    EXPECT_EQ(before, 0xffffffffU);
    EXPECT_EQ(after, 100U);
}

TEST_F(EmulatorDeathTest, CopiesThatBreakARuleAbort) {
    Source const source = CountingSource();
    auto copy = [&](size_t to, size_t from, bool commit) {
        Launch(1, 1, 32, [&] {
            CopyAsync(SharedMemory() + to, source.words + from, true);
            if (commit) {
                CommitCopies();
            }
            WaitCopies<1>();
        });
    };
    EXPECT_DEATH(copy(8, 0, true), "not aligned to 16 bytes");
    EXPECT_DEATH(copy(0, 1, true), "not aligned to 16 bytes");
    EXPECT_DEATH(copy(32, 0, true), "ends outside shared memory");
    EXPECT_DEATH(copy(0, 0, true), "copies that it has not waited for");
    EXPECT_DEATH(copy(0, 0, false), "copies that it has not waited for");
}

}  // namespace
}  // namespace edgeformer
