// The emulation itself: what the kernel tests rely on it to do and to catch.
#include "emulation/emulator.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "device/intrinsics.cuh"

namespace edgeformer {
namespace {

using emulation::kAllLanes;
using emulation::Landing;
using emulation::Order;
using emulation::Schedule;

cudaError_t Launch(uint32_t blocks, uint32_t threads, size_t shared_bytes, std::function<void()> const& body) {
    return static_cast<cudaError_t>(emulation::Run({{blocks, 1, 1}, {threads, 1, 1}, shared_bytes}, body));
}

// One warp.
void Warp(std::function<void(uint32_t)> const& body) {
    EXPECT_EQ(Launch(1, 32, 0, [&] { body(threadIdx.x); }), cudaSuccess);
}

float* Shared() { return reinterpret_cast<float*>(SharedMemory()); }

// Sets things back after a test.
class Emulator : public testing::Test {
protected:
    void TearDown() override {
        emulation::SetSchedule({});
        emulation::SetDevice({});
        cudaGetLastError();
    }
};
// Their bodies run in child processes.
class EmulatorDeathTest : public Emulator {};

std::vector<Schedule> const kSchedules{{Order::kForward, Landing::kLate, 0},
                                       {Order::kReverse, Landing::kEarly, 0},
                                       {Order::kShuffled, Landing::kLate, 1},
                                       {Order::kShuffled, Landing::kEarly, 2}};

// --- threads and blocks ---

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

constexpr size_t kVectors = 4;

struct alignas(16) Source {
    uint32_t words[4 * kVectors];
};

Source CountingSource() {
    Source source{};
    std::iota(source.words, source.words + 4 * kVectors, 100U);
    return source;
}

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

// --- what ThreadSanitizer is told ---

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

// --- devices and launches ---

TEST_F(Emulator, LaunchesThatCudaRefusesAreRefused) {
    int runs = 0;
    auto count = [&] { ++runs; };
    EXPECT_EQ(Launch(0, 32, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 0, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 1025, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(emulation::Run({{1, 65536, 1}, {1, 1, 1}}, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(emulation::Run({{1, 1, 1}, {1, 1, 65}}, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 32, 48 * 1024 + 1, count), cudaErrorInvalidValue);
    EXPECT_EQ(emulation::LastLaunch().status, cudaErrorInvalidValue);
    EXPECT_EQ(emulation::LastLaunch().shape.shared_bytes, 48U * 1024 + 1);
    emulation::FailLaunch(1, cudaErrorLaunchFailure);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaSuccess);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaErrorLaunchFailure);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaSuccess);
    EXPECT_EQ(runs, 2);
}

void Nothing(int* /*runs*/) {}
void Count(int* runs) { ++*runs; }

cudaError_t LaunchKernel(void (*kernel)(int*), size_t shared_bytes, int* runs, cudaStream_t stream = nullptr,
                         bool programmatic = false) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = programmatic ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, runs);
}

TEST_F(Emulator, MuchSharedMemoryMustBeAskedForByKernelAndDevice) {
    int runs = 0;
    emulation::SetDevice({86, 99 * 1024, 1});
    EXPECT_EQ(cudaFuncSetAttribute(Count, cudaFuncAttributeMaxDynamicSharedMemorySize, 99 * 1024 + 1),
              cudaErrorInvalidValue);
    EXPECT_EQ(LaunchKernel(Count, 64 * 1024, &runs), cudaErrorInvalidValue);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_EQ(cudaFuncSetAttribute(Count, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024), cudaSuccess);
    EXPECT_EQ(LaunchKernel(Count, 64 * 1024, &runs), cudaSuccess);
    EXPECT_EQ(LaunchKernel(Count, 64 * 1024 + 1, &runs), cudaErrorInvalidValue);
    EXPECT_EQ(LaunchKernel(Nothing, 64 * 1024, &runs), cudaErrorInvalidValue);
    emulation::SetDevice({90, 227 * 1024, 1});
    EXPECT_EQ(LaunchKernel(Count, 64 * 1024, &runs), cudaErrorInvalidValue);
    EXPECT_EQ(runs, 1);
}

TEST_F(Emulator, DevicesHaveOrdinalsAndAttributes) {
    auto ordinal = [] {
        int device = -1;
        EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
        return device;
    };
    auto attribute = [](cudaDeviceAttr which, int device) {
        int value = -1;
        EXPECT_EQ(cudaDeviceGetAttribute(&value, which, device), cudaSuccess);
        return value;
    };
    emulation::SetDevice({75, 64 * 1024, 40});
    int const turing = ordinal();
    emulation::SetDevice({120, 99 * 1024, 170});
    int const blackwell = ordinal();
    EXPECT_NE(turing, blackwell);
    emulation::SetDevice({75, 64 * 1024, 40});
    EXPECT_EQ(ordinal(), turing);
    EXPECT_EQ(attribute(cudaDevAttrComputeCapabilityMajor, blackwell), 12);
    EXPECT_EQ(attribute(cudaDevAttrComputeCapabilityMinor, turing), 5);
    EXPECT_EQ(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, turing), 64 * 1024);
    EXPECT_EQ(attribute(cudaDevAttrMultiProcessorCount, blackwell), 170);
    EXPECT_EQ(cudaSetDevice(blackwell), cudaSuccess);
    EXPECT_EQ(emulation::CurrentDevice().compute_capability, 120);
    int count = 0;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    EXPECT_EQ(cudaSetDevice(count), cudaErrorInvalidDevice);
    emulation::FailCall("cudaGetDevice", cudaErrorNoDevice);
    EXPECT_EQ(cudaGetDevice(&count), cudaErrorNoDevice);
    EXPECT_EQ(cudaGetDevice(&count), cudaSuccess);
}

TEST_F(Emulator, AStreamInErrorTakesNoLaunch) {
    int runs = 0;
    CUstream_st stream{cudaErrorIllegalAddress};
    EXPECT_EQ(LaunchKernel(Count, 0, &runs, &stream), cudaErrorIllegalAddress);
    EXPECT_EQ(cudaPeekAtLastError(), cudaErrorIllegalAddress);
    stream.error = cudaSuccess;
    EXPECT_EQ(LaunchKernel(Count, 0, &runs, &stream), cudaSuccess);
    EXPECT_EQ(runs, 1);
}

TEST_F(Emulator, ProgrammaticLaunchesNeedComputeCapability90) {
    int runs = 0;
    emulation::SetDevice({89, 99 * 1024, 1});
    EXPECT_EQ(LaunchKernel(Count, 0, &runs, nullptr, true), cudaErrorNotSupported);
    emulation::SetDevice({90, 227 * 1024, 1});
    EXPECT_EQ(LaunchKernel(Nothing, 0, &runs), cudaSuccess);
    EXPECT_EQ(LaunchKernel(Count, 0, &runs, nullptr, true), cudaSuccess);
    EXPECT_TRUE(emulation::LastLaunch().shape.programmatic);
    EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace edgeformer
