// Runs CUDA kernels as host C++: no GPU, no CUDA toolkit, and every tool that works on C++ (debugger, sanitizers)
// works.
//
// Put this folder first in the include path and compile the .cu files as C++: cuda_runtime.h and the other CUDA headers
// here then stand in for NVIDIA's. Only what the project's kernels use is there.
//
// Blocks run one after another. The threads of a block are fibers: each runs until it waits at a barrier or a warp
// shuffle. Dynamic shared memory is poisoned for every block (NaN as float), and for AddressSanitizer it ends where the
// launch said. What the emulation cannot show: races between blocks, memory-order effects beyond barriers, timing.
//
// Broken rules (a barrier that part of the block never reaches, lanes of a warp in different shuffles) print a message
// and abort.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace edgeformer::emulation {

struct Point {
    uint32_t x = 1;
    uint32_t y = 1;
    uint32_t z = 1;
};

struct LaunchShape {
    Point grid;
    Point block;
    size_t shared_bytes = 0;
};

// In which order the threads of a block, and the blocks of a grid, take their turns.
enum class Order { kForward, kReverse };
void SetOrder(Order order);

// The launch after `successes` more launches fails with `status` and runs nothing; once.
void FailLaunch(int32_t successes, int32_t status);

// Launches since the program started.
int64_t LaunchCount();

// Runs `thread` once for every thread of the grid. Returns 0, or the status of a launch that CUDA would refuse.
int32_t Run(LaunchShape const& shape, std::function<void()> const& thread);

// Where the running thread is.
extern Point thread_index;
extern Point block_index;
extern Point block_size;
extern Point grid_size;

// For the running thread.
void BlockBarrier();
void WarpBarrier(uint32_t mask);
// The value that lane `own lane ^ lane_mask` brought to the same shuffle.
uint32_t ShuffleXor(uint32_t mask, uint32_t value, int32_t lane_mask);

}  // namespace edgeformer::emulation
