// The threads of a block take turns.
#include <algorithm>
#include <string>
#include <vector>

#include "machine.h"

namespace edgeformer::emulation {

Point thread_index;
Machine machine;

namespace {

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

// Gives every thread that is ready a turn; returns whether there was one.
bool RunInTurn() {
    bool ran = false;
    for (uint32_t i = 0; i < machine.thread_count; ++i) {
        bool const reverse = machine.schedule.order == Order::kReverse;
        Thread& thread = Threads()[reverse ? machine.thread_count - 1 - i : i];
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

}  // namespace

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

void SetSchedule(Schedule const& schedule) {
    machine.schedule = schedule;
    machine.random.seed(schedule.seed);
}

void MakeThreads() {
    while (Threads().size() < machine.thread_count) {
        Threads().emplace_back(ThreadMain);
    }
    Point const& block = machine.shape.block;
    machine.warps.assign((machine.thread_count + kLanes - 1) / kLanes, Warp{});
    machine.waiting = 0;
    machine.barriers = 0;
    for (uint32_t i = 0; i < machine.thread_count; ++i) {
        Thread& thread = Threads()[i];
        thread.number = i;
        thread.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        thread.state = State::kReady;
    }
}

// A block is stuck when nobody is ready: some wait for others that have ended or wait elsewhere.
void RunThreads() {
    for (;;) {
        bool const ran = machine.schedule.order == Order::kShuffled ? RunShuffled() : RunInTurn();
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

}  // namespace edgeformer::emulation
