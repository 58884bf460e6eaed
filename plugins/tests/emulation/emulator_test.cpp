// The emulation itself: what the kernel tests rely on it to catch, and its number formats.
#include "emulation/emulator.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <functional>

#include "check.h"

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

TEST(every_thread_of_every_block_runs_once) {
    std::vector<int> runs(6 * 70, 0);
    CHECK_EQ(Launch(6, 70, 0, [&] { ++runs[blockIdx.x * blockDim.x + threadIdx.x]; }), cudaSuccess);
    CHECK(runs == std::vector<int>(6 * 70, 1));
}

TEST(barrier_separates_writes_from_reads) {
    std::vector<float> read(64, 0.F);
    CHECK_EQ(Launch(1, 64, 64 * sizeof(float),
                    [&] {
                        Shared()[threadIdx.x] = static_cast<float>(threadIdx.x);
                        __syncthreads();
                        read[threadIdx.x] = Shared()[63 - threadIdx.x];
                    }),
             cudaSuccess);
    CHECK_EQ(read[0], 63.F);
    CHECK_EQ(read[63], 0.F);
}

TEST(a_missing_barrier_reads_nan) {
    float read = 0.F;
    Launch(1, 64, 64 * sizeof(float), [&] {
        Shared()[threadIdx.x] = 1.F;
        if (threadIdx.x == 0) {
            read = Shared()[63];
        }
    });
    CHECK(std::isnan(read));
}

TEST(shared_memory_is_fresh_for_every_block) {
    int fresh = 0;
    Launch(3, 1, sizeof(float), [&] {
        fresh += std::isnan(Shared()[0]) ? 1 : 0;
        Shared()[0] = 1.F;
    });
    CHECK_EQ(fresh, 3);
}

TEST(shuffle_exchanges_lanes_within_a_warp) {
    std::vector<float> received(64, 0.F);
    Launch(1, 64, 0, [&] { received[threadIdx.x] = __shfl_xor_sync(0xffffffffU, static_cast<float>(threadIdx.x), 5); });
    CHECK_EQ(received[0], 5.F);
    CHECK_EQ(received[40], 45.F);
}

TEST(reverse_order_runs_the_last_thread_first) {
    uint32_t first = 0;
    emulation::SetOrder(emulation::Order::kReverse);
    Launch(2, 8, 0, [&, started = false]() mutable {
        if (!started) {
            first = blockIdx.x * 8 + threadIdx.x;
        }
        started = true;
    });
    emulation::SetOrder(emulation::Order::kForward);
    CHECK_EQ(first, 15U);
}

TEST(barriers_that_some_threads_never_reach_abort) {
    CHECK(Dies([] {
        Launch(1, 64, 0, [] {
            if (threadIdx.x < 32) {
                __syncthreads();
            }
        });
    }));
    CHECK(Dies([] {
        Launch(1, 32, 0, [] {
            if (threadIdx.x < 16) {
                __shfl_xor_sync(0xffffffffU, 0.F, 1);
            }
        });
    }));
    CHECK(Dies([] {
        Launch(1, 32, 0, [] {
            if (threadIdx.x == 0) {
                __syncwarp();
            } else {
                __shfl_xor_sync(0xffffffffU, 0.F, 1);
            }
        });
    }));
    CHECK(!Dies([] { Launch(1, 64, 0, [] { __syncthreads(); }); }));
}

#if defined(__SANITIZE_ADDRESS__)
TEST(shared_memory_past_the_requested_size_is_caught) {
    CHECK(Dies([] { Launch(1, 1, 16 * sizeof(float), [] { Shared()[16] = 1.F; }); }));
    CHECK(!Dies([] { Launch(1, 1, 16 * sizeof(float), [] { Shared()[15] = 1.F; }); }));
}
#endif

TEST(launches_that_cuda_refuses_are_refused) {
    int runs = 0;
    auto count = [&] { ++runs; };
    CHECK_EQ(Launch(0, 32, 0, count), cudaErrorInvalidConfiguration);
    CHECK_EQ(Launch(1, 0, 0, count), cudaErrorInvalidConfiguration);
    CHECK_EQ(Launch(1, 1025, 0, count), cudaErrorInvalidConfiguration);
    CHECK_EQ(Launch(1, 32, 48 * 1024 + 1, count), cudaErrorInvalidValue);
    emulation::FailLaunch(1, cudaErrorLaunchFailure);
    CHECK_EQ(Launch(1, 1, 0, count), cudaSuccess);
    CHECK_EQ(Launch(1, 1, 0, count), cudaErrorLaunchFailure);
    CHECK_EQ(Launch(1, 1, 0, count), cudaSuccess);
    CHECK_EQ(runs, 2);
}

TEST(half_conversions) {
    int wrong = 0;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        __half const half{static_cast<uint16_t>(bits)};
        float const value = __half2float(half);
        wrong += std::isnan(value) ? 0 : static_cast<int>(__float2half_rn(value).bits != bits);
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(__half2float({0x3c00}), 1.F);
    CHECK_EQ(__half2float({0x7bff}), 65504.F);
    CHECK_EQ(__half2float({0x0001}), std::ldexp(1.F, -24));
    CHECK_EQ(__float2half_rn(65519.F).bits, 0x7bff);
    CHECK_EQ(__float2half_rn(65520.F).bits, 0x7c00);
    CHECK_EQ(__float2half_rn(1.F + std::ldexp(1.F, -11)).bits, 0x3c00);        // tie to even
    CHECK_EQ(__float2half_rn(1.F + 3.F * std::ldexp(1.F, -11)).bits, 0x3c02);  // tie to even
    CHECK_EQ(__float2half_rn(std::ldexp(1.F, -25)).bits, 0x0000);              // tie to even
    CHECK_EQ(__float2half_rn(1.01F * std::ldexp(1.F, -25)).bits, 0x0001);
    CHECK_EQ(__float2half_rn(-2.F).bits, 0xc000);
    CHECK(std::isnan(__half2float(__float2half_rn(NAN))));
}

TEST(bfloat16_conversions) {
    CHECK_EQ(__bfloat162float({0x3f80}), 1.F);
    CHECK_EQ(__float2bfloat16_rn(1.F + std::ldexp(1.F, -8)).bits, 0x3f80);        // tie to even
    CHECK_EQ(__float2bfloat16_rn(1.F + 3.F * std::ldexp(1.F, -8)).bits, 0x3f82);  // tie to even
    CHECK_EQ(__float2bfloat16_rn(-INFINITY).bits, 0xff80);
    CHECK(std::isnan(__bfloat162float(__float2bfloat16_rn(NAN))));
}

}  // namespace
}  // namespace edgeformer
