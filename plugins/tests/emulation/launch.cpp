// Launches: what CUDA would refuse, and the blocks of a grid one after another.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"
#include "machine.h"

namespace edgeformer::emulation {

Point block_index;
Point block_size;
Point grid_size;

namespace {

constexpr uint32_t kMaxBlockZ = 64;
constexpr size_t kSharedAlignment = 128;

LaunchRecord last;
int64_t failing_launch = -1;
int32_t failure = 0;
uint64_t most_blocks = UINT64_MAX;  // of the next launch

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
    MakeThreads();
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
    if (machine.launches++ == failing_launch) {
        return failure;
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
    if (shape.shared_bytes > SharedBytesLimit(shape.kernel)) {
        return cudaErrorInvalidValue;
    }
    constexpr int32_t kFirstProgrammatic = 90;
    if (shape.programmatic && CurrentDevice().compute_capability < kFirstProgrammatic) {
        return cudaErrorNotSupported;
    }
    return cudaSuccess;
}

}  // namespace

void FailLaunch(int32_t successes, int32_t status) {
    failing_launch = machine.launches + successes;
    failure = status;
}

void LimitBlocks(uint64_t most) { most_blocks = most; }

int64_t LaunchCount() { return machine.launches; }

LaunchRecord const& LastLaunch() { return last; }

int32_t Run(LaunchShape const& shape, std::function<void()> const& thread) {
    Unwatched const unwatched;
    int32_t const refusal = Refusal(shape);
    last = {shape, refusal};
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
    for (uint64_t const block : BlockOrder(std::min(blocks, std::exchange(most_blocks, UINT64_MAX)))) {
        RunBlock(block);
    }
    Acquire(&machine.launch_ends[machine.launches % 2]);
    return cudaSuccess;
}

}  // namespace edgeformer::emulation
