// What a running thread can do: barriers, operations of its warp, asynchronous copies.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "machine.h"

namespace edgeformer::emulation {

namespace {

bool InSharedMemory(void const* begin) {
    auto const* byte = static_cast<unsigned char const*>(begin);
    return byte >= machine.shared && byte + kCopyBytes <= machine.shared + machine.shape.shared_bytes;
}

}  // namespace

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
