// What is running: a launch, one of its blocks, the threads of that. The emulation's own files share it; tests and
// kernels include emulator.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#include "emulator.h"
#include "fiber.h"
#include "sanitizers.h"

namespace edgeformer::emulation {

inline constexpr uint32_t kMaxThreads = 1024;  // of a block
inline constexpr uint32_t kMaxWarps = kMaxThreads / kLanes;

// Threads of different blocks must be different threads for ThreadSanitizer, or it sees no races between them; it takes
// a few thousand. So the blocks of a launch share this many sets of them.
inline constexpr uint32_t kThreadSets = kWatchesThreads ? 4 : 1;
// Nor may the threads of a kernel know what those of the kernel before knew, if it need not have ended.
inline constexpr uint32_t kPools = 2;

enum class State { kReady, kAtBlockBarrier, kInWarp, kDone };

struct Thread {
    explicit Thread(void (*body)()) : fiber(body) {}

    Fiber fiber;
    Point index;
    uint32_t number = 0;  // in the block
    State state = State::kDone;
    std::vector<Copy> open;                // copies since the last commit
    std::deque<std::vector<Copy>> groups;  // committed, not landed
};

// The operation that some lanes of a warp have reached.
struct Warp {
    char const* what = nullptr;
    uint32_t mask = 0;
    uint32_t arrived = 0;
    uint32_t barriers = 0;  // passed
    Gathering lanes{};
};

// What orders the threads of one set, for ThreadSanitizer. Barriers use two tokens in turn: a thread that is late to
// leave one must not be ordered after what others did on their way to the next.
struct Tokens {
    char block[2];
    char warp[kMaxWarps][2];
};

struct Machine {
    // Threads are made once and run one CUDA thread after another: stacks are expensive to make.
    std::deque<Thread> threads[kPools * kThreadSets];
    Tokens tokens[kPools * kThreadSets];
    // What the host did before the latest launch that was not programmatic, and what the latest launch and the one
    // before it did.
    char launch_begins = 0;
    char launch_ends[2] = {};

    std::vector<Warp> warps;
    Thread* running = nullptr;
    uint32_t pool = 0;  // of the running kernel
    uint32_t set = 0;   // of the running block
    uint32_t thread_count = 0;
    uint32_t waiting = 0;   // at the block barrier
    uint32_t barriers = 0;  // passed by the block
    unsigned char* shared = nullptr;
    LaunchShape shape;
    std::function<void()> const* body = nullptr;

    Schedule schedule;
    std::mt19937 random;

    int64_t launches = 0;  // since the program started
};

extern Machine machine;

inline std::deque<Thread>& Threads() { return machine.threads[machine.set]; }
inline Tokens& SyncTokens() { return machine.tokens[machine.set]; }

// The running thread.
Thread& Running();
// Ends its turn; it goes on when something makes it ready again.
void WaitAs(State state);

// Gives the block its threads, ready to run `body` of the machine, each with its index.
void MakeThreads();
// Runs them to their ends.
void RunThreads();

// Most shared memory that a block of the kernel gets on the current device.
size_t SharedBytesLimit(void const* kernel);

}  // namespace edgeformer::emulation
