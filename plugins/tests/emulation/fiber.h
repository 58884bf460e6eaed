// Functions that run on stacks of their own and take turns: what the threads of an emulated block are.
#pragma once

#include <cstddef>

namespace edgeformer::emulation {

// Runs `body`, which must never return, a piece at a time. For AddressSanitizer every fiber has its own stack, for
// ThreadSanitizer it is a thread of its own.
class Fiber {
public:
    explicit Fiber(void (*body)());
    ~Fiber();
    Fiber(Fiber const&) = delete;
    Fiber& operator=(Fiber const&) = delete;

    // Lets the body go on until it suspends itself.
    void Resume();
    // From inside the body.
    void Suspend();

private:
    struct Context;

    static void Enter();

    Context* context_;
};

}  // namespace edgeformer::emulation
