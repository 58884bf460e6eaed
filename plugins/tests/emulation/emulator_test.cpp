// The emulation itself: what the kernel tests rely on it to catch, and its number formats.
#include "emulation/emulator.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <functional>

namespace edgeformer {

extern unsigned char dynamic_shared_memory[];

namespace {

cudaError_t Launch(uint32_t blocks, uint32_t threads, size_t shared_bytes, std::function<void()> const& body) {
    return static_cast<cudaError_t>(emulation::Run({{blocks, 1, 1}, {threads, 1, 1}, shared_bytes}, body));
}

float* Shared() { return reinterpret_cast<float*>(dynamic_shared_memory); }

// Whether body ends its process abnormally.
bool Dies(std::function<void()> const& body) {
    std::fflush(stdout);
    pid_t const child = fork();
    if (child == 0) {
        (void)std::freopen("/dev/null", "w", stderr);
        body();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Emulator, EveryThreadOfEveryBlockRunsOnce) {
    std::vector<int> runs(6 * 70, 0);
    EXPECT_EQ(Launch(6, 70, 0, [&] { ++runs[blockIdx.x * blockDim.x + threadIdx.x]; }), cudaSuccess);
    EXPECT_TRUE(runs == std::vector<int>(6 * 70, 1));
}

TEST(Emulator, BarrierSeparatesWritesFromReads) {
    std::vector<float> read(64, 0.F);
    EXPECT_EQ(Launch(1, 64, 64 * sizeof(float),
                     [&] {
                         Shared()[threadIdx.x] = static_cast<float>(threadIdx.x);
                         __syncthreads();
                         read[threadIdx.x] = Shared()[63 - threadIdx.x];
                     }),
              cudaSuccess);
    EXPECT_EQ(read[0], 63.F);
    EXPECT_EQ(read[63], 0.F);
}

TEST(Emulator, AMissingBarrierReadsNan) {
    float read = 0.F;
    Launch(1, 64, 64 * sizeof(float), [&] {
        Shared()[threadIdx.x] = 1.F;
        if (threadIdx.x == 0) {
            read = Shared()[63];
        }
    });
    EXPECT_TRUE(std::isnan(read));
}

TEST(Emulator, SharedMemoryIsFreshForEveryBlock) {
    int fresh = 0;
    Launch(3, 1, sizeof(float), [&] {
        fresh += std::isnan(Shared()[0]) ? 1 : 0;
        Shared()[0] = 1.F;
    });
    EXPECT_EQ(fresh, 3);
}

TEST(Emulator, ShuffleExchangesLanesWithinAWarp) {
    std::vector<float> received(64, 0.F);
    Launch(1, 64, 0, [&] { received[threadIdx.x] = __shfl_xor_sync(0xffffffffU, static_cast<float>(threadIdx.x), 5); });
    EXPECT_EQ(received[0], 5.F);
    EXPECT_EQ(received[40], 45.F);
}

TEST(Emulator, ReverseOrderRunsTheLastThreadFirst) {
    uint32_t first = 0;
    emulation::SetOrder(emulation::Order::kReverse);
    Launch(2, 8, 0, [&, started = false]() mutable {
        if (!started) {
            first = blockIdx.x * 8 + threadIdx.x;
        }
        started = true;
    });
    emulation::SetOrder(emulation::Order::kForward);
    EXPECT_EQ(first, 15U);
}

TEST(Emulator, BarriersThatSomeThreadsNeverReachAbort) {
    EXPECT_TRUE(Dies([] {
        Launch(1, 64, 0, [] {
            if (threadIdx.x < 32) {
                __syncthreads();
            }
        });
    }));
    EXPECT_TRUE(Dies([] {
        Launch(1, 32, 0, [] {
            if (threadIdx.x < 16) {
                __shfl_xor_sync(0xffffffffU, 0.F, 1);
            }
        });
    }));
    EXPECT_TRUE(Dies([] {
        Launch(1, 32, 0, [] {
            if (threadIdx.x == 0) {
                __syncwarp();
            } else {
                __shfl_xor_sync(0xffffffffU, 0.F, 1);
            }
        });
    }));
    EXPECT_FALSE(Dies([] { Launch(1, 64, 0, [] { __syncthreads(); }); }));
}

#if defined(__SANITIZE_ADDRESS__)
TEST(Emulator, SharedMemoryPastTheRequestedSizeIsCaught) {
    EXPECT_TRUE(Dies([] { Launch(1, 1, 16 * sizeof(float), [] { Shared()[16] = 1.F; }); }));
    EXPECT_FALSE(Dies([] { Launch(1, 1, 16 * sizeof(float), [] { Shared()[15] = 1.F; }); }));
}
#endif

TEST(Emulator, LaunchesThatCudaRefusesAreRefused) {
    int runs = 0;
    auto count = [&] { ++runs; };
    EXPECT_EQ(Launch(0, 32, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 0, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 1025, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 32, 48 * 1024 + 1, count), cudaErrorInvalidValue);
    emulation::FailLaunch(1, cudaErrorLaunchFailure);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaSuccess);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaErrorLaunchFailure);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaSuccess);
    EXPECT_EQ(runs, 2);
}

TEST(Emulator, HalfConversions) {
    int wrong = 0;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        __half const half{static_cast<uint16_t>(bits)};
        float const value = __half2float(half);
        wrong += std::isnan(value) ? 0 : static_cast<int>(__float2half_rn(value).bits != bits);
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(__half2float({0x3c00}), 1.F);
    EXPECT_EQ(__half2float({0x7bff}), 65504.F);
    EXPECT_EQ(__half2float({0x0001}), std::ldexp(1.F, -24));
    EXPECT_EQ(__float2half_rn(65519.F).bits, 0x7bff);
    EXPECT_EQ(__float2half_rn(65520.F).bits, 0x7c00);
    EXPECT_EQ(__float2half_rn(1.F + std::ldexp(1.F, -11)).bits, 0x3c00);        // tie to even
    EXPECT_EQ(__float2half_rn(1.F + 3.F * std::ldexp(1.F, -11)).bits, 0x3c02);  // tie to even
    EXPECT_EQ(__float2half_rn(std::ldexp(1.F, -25)).bits, 0x0000);              // tie to even
    EXPECT_EQ(__float2half_rn(1.01F * std::ldexp(1.F, -25)).bits, 0x0001);
    EXPECT_EQ(__float2half_rn(-2.F).bits, 0xc000);
    EXPECT_TRUE(std::isnan(__half2float(__float2half_rn(NAN))));
}

TEST(Emulator, Bfloat16Conversions) {
    EXPECT_EQ(__bfloat162float({0x3f80}), 1.F);
    EXPECT_EQ(__float2bfloat16_rn(1.F + std::ldexp(1.F, -8)).bits, 0x3f80);        // tie to even
    EXPECT_EQ(__float2bfloat16_rn(1.F + 3.F * std::ldexp(1.F, -8)).bits, 0x3f82);  // tie to even
    EXPECT_EQ(__float2bfloat16_rn(-INFINITY).bits, 0xff80);
    EXPECT_TRUE(std::isnan(__bfloat162float(__float2bfloat16_rn(NAN))));
}

}  // namespace
}  // namespace edgeformer
