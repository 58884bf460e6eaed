#include "emulator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"
#include "fiber.h"

namespace edgeformer::emulation {

Point thread_index;
Point block_index;
Point block_size;
Point grid_size;

namespace {

constexpr size_t kGrantedSharedBytes = 48 * 1024;  // what every GPU grants without asking
constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMaxBlockZ = 64;
constexpr uint32_t kMaxWarps = kMaxThreads / kLanes;
constexpr size_t kSharedAlignment = 128;

// Threads of different blocks must be different threads for ThreadSanitizer, or it sees no races between them; it takes
// a few thousand. So the blocks of a launch share this many sets of them.
constexpr uint32_t kThreadSets = kWatchesThreads ? 4 : 1;
// Nor may the threads of a kernel know what those of the kernel before knew, if it need not have ended.
constexpr uint32_t kPools = 2;

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

    std::vector<Device> devices{Device{}};
    size_t device = 0;
    std::map<std::pair<size_t, void const*>, int64_t> allowed_shared_bytes;  // by device and kernel

    int64_t launches = 0;
    LaunchRecord last;
    int64_t failing_launch = -1;
    int32_t failure = 0;
    uint64_t most_blocks = UINT64_MAX;  // of the next launch
    std::map<std::string, int32_t> failing_calls;
};

Machine machine;

std::deque<Thread>& Threads() { return machine.threads[machine.set]; }
Tokens& SyncTokens() { return machine.tokens[machine.set]; }

Thread& Running() {
    if (machine.running == nullptr) {
        Die("a device function outside a kernel");
    }
    return *machine.running;
}

void WaitAs(State state) {
    Thread& self = Running();
    self.state = state;
    self.fiber.Suspend();
}

void EndThread() {
    Thread& self = Running();
    bool const leftover = std::any_of(self.groups.begin(), self.groups.end(), [](auto const& g) { return !g.empty(); });
    if (leftover || !self.open.empty()) {
        Die("a thread ends with asynchronous copies that it has not waited for");
    }
    self.groups.clear();
    WaitAs(State::kDone);
}

// Runs one CUDA thread after another, of whatever block comes.
void ThreadMain() {
    for (;;) {
        Acquire(&machine.launch_begins);
        (*machine.body)();
        Release(&machine.launch_ends[machine.launches % 2]);
        EndThread();
    }
}

// Gives a thread its turn.
void Continue(Thread& thread) {
    machine.running = &thread;
    thread_index = thread.index;
    thread.fiber.Resume();
    machine.running = nullptr;
}

[[noreturn]] void DieStuck() {
    for (uint32_t i = 0; i < machine.thread_count; ++i) {
        Thread& thread = Threads()[i];
        if (thread.state == State::kAtBlockBarrier || thread.state == State::kInWarp) {
            machine.running = &thread;
            std::string const where =
                thread.state == State::kAtBlockBarrier ? "__syncthreads" : machine.warps[i / kLanes].what;
            Die(("deadlock: waits in " + where + " for threads that never come").c_str());
        }
    }
    Die("deadlock");
}

// Gives every thread of [begin, end) that is ready a turn; returns whether there was one.
bool RunRound(uint32_t begin, uint32_t end) {
    bool ran = false;
    for (uint32_t i = begin; i < end; ++i) {
        uint32_t const number = machine.schedule.order == Order::kReverse ? end - 1 - (i - begin) : i;
        Thread& thread = Threads()[number];
        if (thread.state == State::kReady) {
            Continue(thread);
            ran = true;
        }
    }
    return ran;
}

// Random warps in turn, each for a random number of rounds, so that some run far ahead of the others; the lanes of a
// warp in random order.
bool RunShuffled() {
    std::vector<uint32_t> warps(machine.warps.size());
    for (uint32_t i = 0; i < warps.size(); ++i) {
        warps[i] = i;
    }
    std::shuffle(warps.begin(), warps.end(), machine.random);
    bool ran = false;
    for (uint32_t const warp : warps) {
        uint32_t lanes[kLanes];
        uint32_t count = 0;
        for (uint32_t i = warp * kLanes; i < machine.thread_count && i < (warp + 1) * kLanes; ++i) {
            lanes[count++] = i;
        }
        std::shuffle(lanes, lanes + count, machine.random);
        uint32_t const rounds = 1U << machine.random() % 8;
        bool ready = true;
        for (uint32_t round = 0; ready && round < rounds; ++round) {
            ready = false;
            for (uint32_t i = 0; i < count; ++i) {
                Thread& thread = Threads()[lanes[i]];
                if (thread.state == State::kReady) {
                    Continue(thread);
                    ready = true;
                }
            }
            ran = ran || ready;
        }
    }
    return ran;
}

// Runs the block's threads to their ends. A block is stuck when nobody is ready: some wait for others that have ended
// or wait elsewhere.
void RunThreads() {
    for (;;) {
        bool const ran = machine.schedule.order == Order::kShuffled ? RunShuffled() : RunRound(0, machine.thread_count);
        if (ran) {
            continue;
        }
        for (uint32_t i = 0; i < machine.thread_count; ++i) {
            if (Threads()[i].state != State::kDone) {
                DieStuck();
            }
        }
        return;
    }
}

// Sum of the base-4 digits: neighbours differ, and no stride keeps two blocks in one set all the time. The block of the
// same number in the next launch has another set.
uint32_t SetOfBlock(uint64_t block) {
    auto sum = static_cast<uint64_t>(machine.launches);
    for (; block > 0; block /= 4) {
        sum += block % 4;
    }
    return machine.pool * kThreadSets + static_cast<uint32_t>(sum % kThreadSets);
}

void RunBlock(uint64_t block) {
    LaunchShape const& shape = machine.shape;
    block_index = {static_cast<uint32_t>(block % shape.grid.x),
                   static_cast<uint32_t>(block / shape.grid.x % shape.grid.y),
                   static_cast<uint32_t>(block / shape.grid.x / shape.grid.y)};
    machine.set = SetOfBlock(block);
    while (Threads().size() < machine.thread_count) {
        Threads().emplace_back(ThreadMain);
    }
    // New for every block and of the exact size: AddressSanitizer sees what lies beyond it, and ThreadSanitizer
    // remembers nothing of another block's.
    void* memory = nullptr;
    if (shape.shared_bytes > 0 && posix_memalign(&memory, kSharedAlignment, shape.shared_bytes) != 0) {
        Die("no memory for the shared memory of a block");
    }
    if (memory != nullptr) {
        std::memset(memory, 0xff, shape.shared_bytes);  // NaN in every floating-point type
    }
    machine.shared = static_cast<unsigned char*>(memory);
    machine.warps.assign((machine.thread_count + kLanes - 1) / kLanes, Warp{});
    machine.waiting = 0;
    machine.barriers = 0;
    for (uint32_t i = 0; i < machine.thread_count; ++i) {
        Thread& thread = Threads()[i];
        thread.number = i;
        thread.index = {i % shape.block.x, i / shape.block.x % shape.block.y, i / (shape.block.x * shape.block.y)};
        thread.state = State::kReady;
    }
    RunThreads();
    std::free(memory);
    machine.shared = nullptr;
}

std::vector<uint64_t> BlockOrder(uint64_t blocks) {
    std::vector<uint64_t> order(blocks);
    for (uint64_t i = 0; i < blocks; ++i) {
        order[i] = machine.schedule.order == Order::kReverse ? blocks - 1 - i : i;
    }
    if (machine.schedule.order == Order::kShuffled) {
        std::shuffle(order.begin(), order.end(), machine.random);
    }
    return order;
}

int32_t Refusal(LaunchShape const& shape) {
    if (machine.launches++ == machine.failing_launch) {
        return machine.failure;
    }
    if (shape.stream_error != cudaSuccess) {
        return shape.stream_error;
    }
    bool const grid_fits = shape.grid.x >= 1 && shape.grid.x <= 0x7fffffffU && shape.grid.y >= 1 &&
                           shape.grid.y <= 65535 && shape.grid.z >= 1 && shape.grid.z <= 65535;
    uint64_t const threads = static_cast<uint64_t>(shape.block.x) * shape.block.y * shape.block.z;
    bool const block_fits = threads >= 1 && threads <= kMaxThreads && shape.block.z <= kMaxBlockZ;
    if (!grid_fits || !block_fits) {
        return cudaErrorInvalidConfiguration;
    }
    auto const allowed = machine.allowed_shared_bytes.find({machine.device, shape.kernel});
    bool const asked = allowed != machine.allowed_shared_bytes.end() && shape.kernel != nullptr;
    size_t const limit = std::max(kGrantedSharedBytes, asked ? static_cast<size_t>(allowed->second) : 0);
    if (shape.shared_bytes > limit) {
        return cudaErrorInvalidValue;
    }
    constexpr int32_t kFirstProgrammatic = 90;
    if (shape.programmatic && CurrentDevice().compute_capability < kFirstProgrammatic) {
        return cudaErrorNotSupported;
    }
    return cudaSuccess;
}

bool InSharedMemory(void const* begin) {
    auto const* byte = static_cast<unsigned char const*>(begin);
    return byte >= machine.shared && byte + kCopyBytes <= machine.shared + machine.shape.shared_bytes;
}

}  // namespace

void SetDevice(Device const& device) {
    auto const same = [&](Device const& other) {
        return other.compute_capability == device.compute_capability &&
               other.max_shared_bytes == device.max_shared_bytes && other.multiprocessors == device.multiprocessors;
    };
    auto const found = std::find_if(machine.devices.begin(), machine.devices.end(), same);
    machine.device = static_cast<size_t>(found - machine.devices.begin());
    if (found == machine.devices.end()) {
        machine.devices.push_back(device);
    }
}

Device const& CurrentDevice() { return machine.devices[machine.device]; }

int32_t DeviceCount() { return static_cast<int32_t>(machine.devices.size()); }
int32_t DeviceOrdinal() { return static_cast<int32_t>(machine.device); }
Device const& DeviceAt(int32_t ordinal) { return machine.devices[static_cast<size_t>(ordinal)]; }
int32_t SelectDevice(int32_t ordinal) {
    if (ordinal < 0 || ordinal >= DeviceCount()) {
        return cudaErrorInvalidDevice;
    }
    machine.device = static_cast<size_t>(ordinal);
    return cudaSuccess;
}

void SetSchedule(Schedule const& schedule) {
    machine.schedule = schedule;
    machine.random.seed(schedule.seed);
}

void FailLaunch(int32_t successes, int32_t status) {
    machine.failing_launch = machine.launches + successes;
    machine.failure = status;
}

void LimitBlocks(uint64_t most) { machine.most_blocks = most; }

void FailCall(char const* function, int32_t status) { machine.failing_calls[function] = status; }

int32_t TakeFailure(char const* function) {
    auto const found = machine.failing_calls.find(function);
    if (found == machine.failing_calls.end()) {
        return cudaSuccess;
    }
    int32_t const status = found->second;
    machine.failing_calls.erase(found);
    return status;
}

int64_t LaunchCount() { return machine.launches; }

LaunchRecord const& LastLaunch() { return machine.last; }

int32_t AllowSharedBytes(void const* kernel, int64_t bytes) {
    if (kernel == nullptr || bytes < 0 || bytes > CurrentDevice().max_shared_bytes) {
        return cudaErrorInvalidValue;
    }
    machine.allowed_shared_bytes[{machine.device, kernel}] = bytes;
    return cudaSuccess;
}

int32_t Run(LaunchShape const& shape, std::function<void()> const& thread) {
    Unwatched const unwatched;
    int32_t const refusal = Refusal(shape);
    machine.last = {shape, refusal};
    if (refusal != cudaSuccess) {
        return refusal;
    }
    machine.thread_count = shape.block.x * shape.block.y * shape.block.z;
    machine.shape = shape;
    block_size = shape.block;
    grid_size = shape.grid;
    auto const body = std::make_unique<std::function<void()> const>(thread);  // in new memory, as the arguments are
    machine.body = body.get();
    machine.pool = shape.programmatic ? 1 - machine.pool : 0;
    if (!shape.programmatic) {
        Release(&machine.launch_begins);
    }
    uint64_t const blocks = static_cast<uint64_t>(shape.grid.x) * shape.grid.y * shape.grid.z;
    for (uint64_t const block : BlockOrder(std::min(blocks, std::exchange(machine.most_blocks, UINT64_MAX)))) {
        RunBlock(block);
    }
    Acquire(&machine.launch_ends[machine.launches % 2]);
    return cudaSuccess;
}

void Die(char const* what) {
    std::fprintf(stderr, "emulation: %s (block %u,%u,%u, thread %d)\n", what, block_index.x, block_index.y,
                 block_index.z, machine.running != nullptr ? static_cast<int>(machine.running->number) : -1);
    std::abort();
}

unsigned char* SharedMemory() {
    Running();
    return machine.shared;
}

void BlockBarrier() {
    char* token = &SyncTokens().block[machine.barriers % 2];
    Release(token);
    if (++machine.waiting < machine.thread_count) {
        WaitAs(State::kAtBlockBarrier);
    } else {
        machine.waiting = 0;
        ++machine.barriers;
        for (uint32_t i = 0; i < machine.thread_count; ++i) {
            Threads()[i].state = State::kReady;
        }
    }
    Acquire(token);
}

void WaitForPreviousKernel() {
    Running();
    Acquire(&machine.launch_ends[(machine.launches + 1) % 2]);
}

void WarpBarrier(uint32_t mask) {
    uint32_t const warp = Running().number / kLanes;
    char* token = &SyncTokens().warp[warp][machine.warps[warp].barriers % 2];
    Release(token);
    if (Gather("__syncwarp", mask, nullptr, nullptr) != nullptr) {
        ++machine.warps[warp].barriers;
        Dismiss();
    }
    Acquire(token);
}

Gathering const* Gather(char const* what, uint32_t mask, void const* brought, void* taken) {
    uint32_t const lane = Running().number % kLanes;
    Warp& warp = machine.warps[Running().number / kLanes];
    if ((mask >> lane & 1U) == 0U) {
        Die("a lane is not in the mask of its own warp operation");
    }
    if (warp.arrived == 0U) {
        warp.what = what;
        warp.mask = mask;
        warp.lanes = {};
    } else if (warp.mask != mask || (warp.what != what && std::strcmp(warp.what, what) != 0)) {
        Die((std::string("lanes of a warp are in different operations: ") + warp.what + " and " + what).c_str());
    }
    warp.lanes.brought[lane] = brought;
    warp.lanes.taken[lane] = taken;
    warp.arrived |= 1U << lane;
    if (warp.arrived == mask) {
        return &warp.lanes;
    }
    WaitAs(State::kInWarp);
    return nullptr;
}

void Dismiss() {
    Warp& warp = machine.warps[Running().number / kLanes];
    uint32_t const first = Running().number / kLanes * kLanes;
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        if ((warp.mask >> lane & 1U) != 0U) {
            Threads()[first + lane].state = State::kReady;
        }
    }
    warp.arrived = 0;
}

bool AddCopy(Copy const& copy) {
    auto const misaligned = [](void const* address) { return reinterpret_cast<uintptr_t>(address) % kCopyBytes != 0; };
    if (misaligned(copy.shared) || misaligned(copy.global)) {
        Die("an asynchronous copy is not aligned to 16 bytes");
    }
    if (!InSharedMemory(copy.shared)) {
        Die("an asynchronous copy ends outside shared memory");
    }
    Running().open.push_back(copy);
    return machine.schedule.landing == Landing::kEarly;
}

void CommitCopies() {
    Thread& self = Running();
    self.groups.push_back(std::move(self.open));
    self.open.clear();
}

std::vector<Copy> TakeCopies(int32_t pending) {
    std::vector<Copy> landing;
    auto& groups = Running().groups;
    for (; static_cast<int64_t>(groups.size()) > pending; groups.pop_front()) {
        landing.insert(landing.end(), groups.front().begin(), groups.front().end());
    }
    if (machine.schedule.landing == Landing::kEarly) {
        landing.clear();  // they have
    }
    return landing;
}

int32_t Lane() { return static_cast<int32_t>(Running().number % kLanes); }

}  // namespace edgeformer::emulation
