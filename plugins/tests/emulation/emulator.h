// Runs CUDA kernels as host C++: no GPU, no CUDA toolkit, and every tool that works on C++ (debugger, sanitizers)
// works.
//
// Put this folder first in the include path and compile the .cu files as C++: cuda_runtime.h and the other headers here
// then stand in for NVIDIA's and for the project's device/intrinsics.cuh. Only what the project's kernels use is there.
//
// Blocks run one after another. The threads of a block are fibers: each runs until it waits at a barrier or in an
// operation of its warp. Every block gets shared memory of the exact size the launch said, full of NaN. With
// ThreadSanitizer each CUDA thread is a thread, and only barriers and launches order them, so what lacks a barrier is
// reported as a race, also between blocks. README.md says what all this can and cannot show.
//
// Broken rules (a barrier that part of the block never reaches, lanes of a warp in different operations, a misaligned
// copy) print a message and abort.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "sanitizers.h"

namespace edgeformer::emulation {

inline constexpr int32_t kLanes = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffU;
inline constexpr size_t kCopyBytes = 16;  // of an asynchronous copy

struct Point {
    uint32_t x = 1;
    uint32_t y = 1;
    uint32_t z = 1;
};

// --- GPUs, and failures of CUDA's functions (devices.cpp) ---

// What cudaDeviceGetAttribute tells.
struct Device {
    int32_t compute_capability = 87;
    int32_t max_shared_bytes = 163 * 1024;  // of a block that asks for more than the 48 KiB every GPU grants
    int32_t multiprocessors = 16;
};

// Makes this the current device. Each different one has an ordinal of its own, as in a machine with several GPUs.
void SetDevice(Device const& device);
Device const& CurrentDevice();

// CUDA's version numbers: 13.0 is 13000. The driver's is that of the runtime until it is set; 0 is no driver.
inline constexpr int32_t kRuntimeVersion = 13000;
void SetDriverVersion(int32_t version);
int32_t DriverVersion();

// Lets this kernel ask for as many bytes of shared memory on the current device. Returns a CUDA status.
int32_t AllowSharedBytes(void const* kernel, int64_t bytes);

// The next call of this CUDA function, for example "cudaGetDevice", fails with `status`; once.
void FailCall(char const* function, int32_t status);
// For the stand-ins: the status FailCall asked for, or 0.
int32_t TakeFailure(char const* function);

// --- the schedule (scheduler.cpp) ---

// In which order the threads of a block, and the blocks of a grid, take their turns. Shuffled lets random warps run
// ahead of others.
enum class Order { kForward, kReverse, kShuffled };

// When the data of an asynchronous copy arrives: as late as allowed, when its thread waits for it, or at once.
enum class Landing { kLate, kEarly };

struct Schedule {
    Order order = Order::kForward;
    Landing landing = Landing::kLate;
    uint32_t seed = 0;  // of kShuffled
};
void SetSchedule(Schedule const& schedule);

// --- launches (launch.cpp) ---

struct LaunchShape {
    Point grid;
    Point block;
    size_t shared_bytes = 0;
    void const* kernel = nullptr;  // for limits that belong to a kernel
    int32_t stream_error = 0;      // what a stream in error returns
    bool programmatic = false;     // may begin before the previous kernel has ended
};

struct LaunchRecord {
    LaunchShape shape;
    int32_t status = 0;
};
// The latest launch, refused ones included.
LaunchRecord const& LastLaunch();

// The launch after `successes` more launches fails with `status` and runs nothing; once.
void FailLaunch(int32_t successes, int32_t status);
// The next launch runs only its first `most` blocks.
void LimitBlocks(uint64_t most);
// Launches since the program started.
int64_t LaunchCount();

// Runs `thread` once for every thread of the grid. Returns 0, or the status of a launch that CUDA would refuse.
int32_t Run(LaunchShape const& shape, std::function<void()> const& thread);

// --- for the running thread (thread.cpp) ---

extern Point thread_index;
extern Point block_index;
extern Point block_size;
extern Point grid_size;

// Prints the message and where the running thread is, and aborts.
[[noreturn]] void Die(char const* what);

// The block's shared memory: 128-byte aligned, of the launch's size.
unsigned char* SharedMemory();

void BlockBarrier();
// After this, a programmatic launch may use what the launch before it has written. ThreadSanitizer reports what uses it
// earlier; that kernel's own predecessor counts only if it has waited, too.
void WaitForPreviousKernel();
void WarpBarrier(uint32_t mask);

// The lanes of a warp that have come to one operation: what each brings, and where its result goes. Null for lanes that
// are not in the mask.
struct Gathering {
    void const* brought[kLanes];
    void* taken[kLanes];
};

// Brings the running lane to the operation `what`, where it waits for the lanes of `mask`. The last one to come gets
// the gathering and must call Dismiss; the others get null when it has.
Gathering const* Gather(char const* what, uint32_t mask, void const* brought, void* taken);
void Dismiss();

// An operation of a warp: combine(In const* const (&in)[32], Out* const (&out)[32]) computes what every lane of `mask`
// takes from what they all bring.
template <class In, class Out, class Combine>
Out Collective(char const* what, uint32_t mask, In const& in, Combine combine) {
    Out out{};
    if (Gathering const* all = Gather(what, mask, &in, &out)) {
        Unwatched const unwatched;  // that it reads and writes other threads' registers is no race
        In const* brought[kLanes];
        Out* taken[kLanes];
        for (int32_t lane = 0; lane < kLanes; ++lane) {
            brought[lane] = static_cast<In const*>(all->brought[lane]);
            taken[lane] = static_cast<Out*>(all->taken[lane]);
        }
        combine(static_cast<In const* const*>(brought), static_cast<Out* const*>(taken));
        Dismiss();
    }
    return out;
}

// The value that lane `source` brought.
template <class T>
T Shuffle(char const* what, uint32_t mask, T const& value, int32_t source) {
    struct Request {
        T value;
        int32_t source;
    };
    return Collective<Request, T>(what, mask, Request{value, source}, [](Request const* const* in, T* const* out) {
        for (int32_t lane = 0; lane < kLanes; ++lane) {
            if (in[lane] == nullptr) {
                continue;
            }
            Request const* from = in[in[lane]->source];
            if (from == nullptr) {
                Die("a shuffle reads from a lane that is not in its mask");
            }
            *out[lane] = from->value;
        }
    });
}

// An asynchronous copy of 16 bytes into shared memory; one that is not `present` writes zeros and reads nothing.
struct Copy {
    void* shared;
    void const* global;
    bool present;

    // Here, not in thread.cpp, so that the sanitizers see it as the running thread's.
    void Land() const {
        if (present) {
            std::memcpy(shared, global, kCopyBytes);
        } else {
            std::memset(shared, 0, kCopyBytes);
        }
    }
};
// Notes a copy as part of the group that the thread's next commit closes. Returns whether it must land now.
bool AddCopy(Copy const& copy);
void CommitCopies();
// Closes all but the `pending` latest groups, and returns the copies that must land now.
std::vector<Copy> TakeCopies(int32_t pending);

inline void CopyAsync(void* shared, void const* global, bool present) {
    Copy const copy{shared, global, present};
    if (AddCopy(copy)) {
        copy.Land();
    }
}
inline void WaitCopies(int32_t pending) {
    for (Copy const& copy : TakeCopies(pending)) {
        copy.Land();
    }
}

// Index of the running thread's lane in its warp.
int32_t Lane();

}  // namespace edgeformer::emulation
