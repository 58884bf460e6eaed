#include "emulator.h"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "cuda_runtime_api.h"
#include "sanitizers.h"

namespace edgeformer {

namespace {
constexpr size_t kMaxSharedBytes = 48 * 1024;  // what every GPU grants without asking
}

// Declared in device.cuh; `extern __shared__` is a plain global here.
alignas(16) unsigned char dynamic_shared_memory[kMaxSharedBytes];

namespace emulation {

Point thread_index;
Point block_index;
Point block_size;
Point grid_size;

namespace {

constexpr uint32_t kLanes = 32;
constexpr uint32_t kMaxThreads = 1024;
constexpr size_t kStackBytes = 128 * 1024;

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kAtShuffle, kDone };

struct Fiber {
    ucontext_t context{};
    std::vector<unsigned char> stack;
    void* fake_stack = nullptr;  // AddressSanitizer's
    Point thread;
    uint32_t number = 0;  // in the block
    State state = State::kDone;
};

// A shuffle or barrier that some lanes of a warp have reached.
struct Meeting {
    State kind = State::kReady;
    uint32_t mask = 0;
    uint32_t arrived = 0;
    uint32_t brought[kLanes] = {};
    int32_t lane_masks[kLanes] = {};
    uint32_t taken[kLanes] = {};  // results; a lane reads its own before it can come to the next meeting
};

struct Machine {
    // Fibers are made once and used by every block: a context and a stack each are expensive to make.
    std::deque<Fiber> fibers;
    std::vector<Meeting> warps;
    Fiber* running = nullptr;
    ucontext_t scheduler{};
    void* scheduler_fake_stack = nullptr;
    void const* scheduler_stack = nullptr;
    size_t scheduler_stack_bytes = 0;
    LaunchShape shape;
    uint32_t threads = 0;
    uint32_t waiting = 0;  // at the block barrier
    std::function<void()> const* body = nullptr;
    Order order = Order::kForward;
    int64_t launches = 0;
    int64_t failing_launch = -1;
    int32_t failure = 0;
};

Machine machine;

[[noreturn]] void Die(char const* what) {
    std::fprintf(stderr, "emulation: %s (block %u,%u,%u, thread %d)\n", what, block_index.x, block_index.y,
                 block_index.z, machine.running != nullptr ? static_cast<int>(machine.running->number) : -1);
    std::abort();
}

void SwitchToScheduler(Fiber& fiber) {
    StartSwitch(&fiber.fake_stack, machine.scheduler_stack, machine.scheduler_stack_bytes);
    swapcontext(&fiber.context, &machine.scheduler);
    FinishSwitch(fiber.fake_stack, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
}

void SwitchToFiber(Fiber& fiber) {
    machine.running = &fiber;
    thread_index = fiber.thread;
    StartSwitch(&machine.scheduler_fake_stack, fiber.stack.data(), kStackBytes);
    swapcontext(&machine.scheduler, &fiber.context);
    FinishSwitch(machine.scheduler_fake_stack, nullptr, nullptr);
    machine.running = nullptr;
}

// A fiber runs one thread after another, of whatever block comes.
void FiberMain() {
    FinishSwitch(nullptr, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
    Fiber& fiber = *machine.running;
    for (;;) {
        (*machine.body)();
        fiber.state = State::kDone;
        SwitchToScheduler(fiber);
    }
}

void MakeFibers(uint32_t count) {
    while (machine.fibers.size() < count) {
        Fiber& fiber = machine.fibers.emplace_back();
        fiber.stack.resize(kStackBytes);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = kStackBytes;
        makecontext(&fiber.context, FiberMain, 0);
    }
}

void WaitAs(State state) {
    machine.running->state = state;
    SwitchToScheduler(*machine.running);
}

void ReleaseBlock() {
    for (uint32_t i = 0; i < machine.threads; ++i) {
        machine.fibers[i].state = State::kReady;
    }
    machine.waiting = 0;
}

// The running lane joins its warp's meeting and waits for the other lanes of `mask`; the last one to come calls
// `complete` and lets everybody go.
template <class Complete>
uint32_t Meet(State kind, uint32_t mask, uint32_t value, int32_t lane_mask, Complete complete) {
    Fiber& self = *machine.running;
    uint32_t const lane = self.number % kLanes;
    Meeting& meeting = machine.warps[self.number / kLanes];
    if ((mask >> lane & 1U) == 0U) {
        Die("a lane is not in the mask of its own warp operation");
    }
    if (meeting.arrived == 0U) {
        meeting.kind = kind;
        meeting.mask = mask;
    } else if (meeting.kind != kind || meeting.mask != mask) {
        Die("lanes of a warp are in different warp operations");
    }
    meeting.brought[lane] = value;
    meeting.lane_masks[lane] = lane_mask;
    meeting.arrived |= 1U << lane;
    if (meeting.arrived != mask) {
        WaitAs(kind);
        return meeting.taken[lane];
    }
    complete(meeting);
    meeting.arrived = 0;
    for (uint32_t other = 0; other < kLanes; ++other) {
        if (other != lane && (mask >> other & 1U) != 0U) {
            machine.fibers[self.number / kLanes * kLanes + other].state = State::kReady;
        }
    }
    return meeting.taken[lane];
}

// A block is stuck when nobody is ready: some threads wait for others that have ended or wait elsewhere.
void RunThreads() {
    uint32_t const last = machine.threads - 1;
    for (bool finished = false; !finished;) {
        bool ran = false;
        finished = true;
        for (uint32_t i = 0; i < machine.threads; ++i) {
            Fiber& fiber = machine.fibers[machine.order == Order::kForward ? i : last - i];
            if (fiber.state == State::kReady) {
                SwitchToFiber(fiber);
                ran = true;
            }
            finished = finished && fiber.state == State::kDone;
        }
        if (!ran && !finished) {
            Die("deadlock: a barrier or shuffle that some threads never reach");
        }
    }
}

void RunBlock() {
    UnpoisonMemory(dynamic_shared_memory, kMaxSharedBytes);
    std::memset(dynamic_shared_memory, 0xff, kMaxSharedBytes);
    PoisonMemory(dynamic_shared_memory + machine.shape.shared_bytes, kMaxSharedBytes - machine.shape.shared_bytes);
    machine.warps.assign((machine.threads + kLanes - 1) / kLanes, Meeting{});
    machine.waiting = 0;
    Point const& size = machine.shape.block;
    for (uint32_t i = 0; i < machine.threads; ++i) {
        Fiber& fiber = machine.fibers[i];
        fiber.number = i;
        fiber.thread = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        fiber.state = State::kReady;
    }
    RunThreads();
}

bool Acceptable(LaunchShape const& shape, uint32_t threads) {
    bool const grid_fits = shape.grid.x >= 1 && shape.grid.x <= 0x7fffffffU && shape.grid.y >= 1 &&
                           shape.grid.y <= 65535 && shape.grid.z >= 1 && shape.grid.z <= 65535;
    return grid_fits && threads >= 1 && threads <= kMaxThreads && shape.shared_bytes <= kMaxSharedBytes;
}

}  // namespace

void SetOrder(Order order) { machine.order = order; }

void FailLaunch(int32_t successes, int32_t status) {
    machine.failing_launch = machine.launches + successes;
    machine.failure = status;
}

int64_t LaunchCount() { return machine.launches; }

int32_t Run(LaunchShape const& shape, std::function<void()> const& thread) {
    if (machine.launches++ == machine.failing_launch) {
        return machine.failure;
    }
    machine.threads = shape.block.x * shape.block.y * shape.block.z;
    if (!Acceptable(shape, machine.threads)) {
        return cudaErrorInvalidConfiguration;
    }
    machine.shape = shape;
    block_size = shape.block;
    grid_size = shape.grid;
    machine.body = &thread;
    MakeFibers(machine.threads);
    uint64_t const blocks = static_cast<uint64_t>(shape.grid.x) * shape.grid.y * shape.grid.z;
    for (uint64_t i = 0; i < blocks; ++i) {
        uint64_t const block = machine.order == Order::kForward ? i : blocks - 1 - i;
        block_index = {static_cast<uint32_t>(block % shape.grid.x),
                       static_cast<uint32_t>(block / shape.grid.x % shape.grid.y),
                       static_cast<uint32_t>(block / shape.grid.x / shape.grid.y)};
        RunBlock();
    }
    UnpoisonMemory(dynamic_shared_memory, kMaxSharedBytes);
    return cudaSuccess;
}

void BlockBarrier() {
    if (++machine.waiting == machine.threads) {
        ReleaseBlock();
    } else {
        WaitAs(State::kAtBlockBarrier);
    }
}

void WarpBarrier(uint32_t mask) {
    Meet(State::kAtWarpBarrier, mask, 0, 0, [](Meeting&) {});
}

uint32_t ShuffleXor(uint32_t mask, uint32_t value, int32_t lane_mask) {
    return Meet(State::kAtShuffle, mask, value, lane_mask, [](Meeting& meeting) {
        for (uint32_t lane = 0; lane < kLanes; ++lane) {
            meeting.taken[lane] = meeting.brought[lane ^ static_cast<uint32_t>(meeting.lane_masks[lane]) % kLanes];
        }
    });
}

}  // namespace emulation
}  // namespace edgeformer
