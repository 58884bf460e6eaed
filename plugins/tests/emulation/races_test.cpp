// What orders memory, as ThreadSanitizer is told.
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "emulation/emulator_fixture.h"

namespace edgeformer {
namespace {

#if defined(__SANITIZE_THREAD__)

// Blocks of 64 threads, in child processes that end at the first race.
#define EXPECT_RACE(blocks, body) \
    EXPECT_EXIT((Launch(blocks, 64, 1024, body), std::exit(0)), testing::ExitedWithCode(66), "data race")

class EmulatorRaces : public Emulator {};
using EmulatorRacesDeathTest = EmulatorRaces;

TEST_F(EmulatorRacesDeathTest, MissingBarriersAreRaces) {
    EXPECT_RACE(1, [] {
        Shared()[threadIdx.x] = 1.F;
        if (Shared()[threadIdx.x ^ 32U] == 2.F) {
            Shared()[threadIdx.x] = 3.F;
        }
    });
}

TEST_F(EmulatorRacesDeathTest, AWarpBarrierDoesNotOrderWarps) {
    EXPECT_RACE(1, [] {
        Shared()[threadIdx.x] = 1.F;
        __syncwarp();
        if (Shared()[threadIdx.x ^ 32U] == 2.F) {
            Shared()[threadIdx.x] = 3.F;
        }
    });
}

TEST_F(EmulatorRacesDeathTest, ShufflesDoNotOrderMemory) {
    EXPECT_RACE(1, [] {
        Shared()[threadIdx.x] = 1.F;
        float const sum = __shfl_xor_sync(kAllLanes, 1.F, 1);
        Shared()[threadIdx.x ^ 1U] = sum;
    });
}

TEST_F(EmulatorRacesDeathTest, AsynchronousCopiesBelongToTheirThread) {
    Source const source = CountingSource();
    EXPECT_RACE(1, [&] {
        if (threadIdx.x == 5) {
            CopyAsync(SharedMemory(), source.words, true);
            CommitCopies();
            WaitCopies<0>();
        }
        __syncwarp();
        if (threadIdx.x == 40) {
            Shared()[4] = Shared()[0];
        }
    });
}

TEST_F(EmulatorRacesDeathTest, BlocksAreNotOrdered) {
    for (uint32_t const distance : {1U, 4U}) {
        std::vector<float> global(1);
        EXPECT_RACE(distance + 1, [&] {
            if (threadIdx.x == 0 && blockIdx.x % distance == 0) {
                global[0] += 1.F;
            }
        });
    }
}

void Fill(float* to) { to[blockIdx.x * 64 + threadIdx.x] = 1.F; }
void Copy(float const* from, float* to, bool waits) {
    if (waits) {
        WaitForPreviousKernel();
    }
    uint32_t const own = blockIdx.x * 64 + threadIdx.x;
    to[own] = from[(own + 70) % 256];
}

// One kernel writes; two more may begin before it has ended, the second of them before the first has, too.
void Chain(bool first_waits, bool first_reads, bool second_waits) {
    emulation::SetDevice({90, 227 * 1024, 1});
    std::vector<float> written(256);
    std::vector<float> other(256);
    std::vector<float> copies(512);
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = 4;
    config.blockDim = 64;
    config.attrs = &attribute;
    cudaLaunchKernelEx(&config, Fill, written.data());
    config.numAttrs = 1;
    cudaLaunchKernelEx(&config, Copy, first_reads ? written.data() : other.data(), copies.data(), first_waits);
    cudaLaunchKernelEx(&config, Copy, written.data(), copies.data() + 256, second_waits);
    std::exit(0);
}

TEST_F(EmulatorRacesDeathTest, ProgrammaticLaunchesMustWait) {
    EXPECT_EXIT(Chain(true, true, true), testing::ExitedWithCode(0), "");
    EXPECT_EXIT(Chain(false, true, true), testing::ExitedWithCode(66), "data race");
    EXPECT_EXIT(Chain(true, true, false), testing::ExitedWithCode(66), "data race");
    // The first copy neither waits nor reads what was written: that kernel may still run when the second has waited.
    EXPECT_EXIT(Chain(false, false, true), testing::ExitedWithCode(66), "data race");
}

#endif

TEST_F(Emulator, BarriersAndLaunchesOrderMemory) {
    for (Schedule const& schedule : kSchedules) {
        emulation::SetSchedule(schedule);
        std::vector<float> global(4 * 64);
        auto step = [&] {
            uint32_t const own = blockIdx.x * 64 + threadIdx.x;
            Shared()[threadIdx.x] = global[(own * 5 + 1) % 256];
            __syncwarp();
            float const neighbour = Shared()[threadIdx.x ^ 1U];
            __syncthreads();
            Shared()[threadIdx.x ^ 32U] = neighbour;
            __syncthreads();
            Shared()[threadIdx.x] += 1.F;
        };
        auto store = [&] { global[blockIdx.x * 64 + threadIdx.x] = 1.F; };
        Launch(4, 64, 64 * sizeof(float), store);
        Launch(4, 64, 64 * sizeof(float), step);
        Launch(4, 64, 64 * sizeof(float), store);
        global[0] = 2.F;
    }
}

}  // namespace
}  // namespace edgeformer
