#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "sanitizers.h"

#if defined(__x86_64__) && !defined(EDGEFORMER_EMULATION_USES_UCONTEXT)
#define EDGEFORMER_SWITCHES_STACKS_ITSELF 1
#else
#define EDGEFORMER_SWITCHES_STACKS_ITSELF 0
#include <ucontext.h>
#endif

// swapcontext also saves the signal mask, a system call that would take most of the emulation's time: a warp changes
// stacks 64 times for every matrix product. So where it is this short, the switch is our own.
#if EDGEFORMER_SWITCHES_STACKS_ITSELF
// Pushes the registers that a call preserves, stores the stack pointer in *saved and goes on where `next` was stored.
extern "C" void edgeformer_emulation_switch_stack(void** saved, void* next);
asm(R"(
    .text
    .globl edgeformer_emulation_switch_stack
    .hidden edgeformer_emulation_switch_stack
    .type edgeformer_emulation_switch_stack, @function
edgeformer_emulation_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size edgeformer_emulation_switch_stack, . - edgeformer_emulation_switch_stack
)");
#endif

#if defined(EDGEFORMER_WATCHES_THREADS)
// A second of waiting for other threads, at every exit, is for threads that run by themselves.
extern "C" char const* __tsan_default_options() { return "atexit_sleep_ms=0"; }
#endif

namespace edgeformer::emulation {
namespace {

constexpr size_t kStackBytes = 256 * 1024;

// A stack whose lowest page is out of bounds, so that an overflow is a crash and not silent damage.
unsigned char* MapStack() {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, static_cast<size_t>(sysconf(_SC_PAGESIZE)), PROT_NONE) != 0) {
        std::perror("emulation: no memory for the stack of a thread");
        std::abort();
    }
    return static_cast<unsigned char*>(memory);
}

#if EDGEFORMER_SWITCHES_STACKS_ITSELF
struct Registers {
    void* stack_pointer = nullptr;

    void Prepare(unsigned char* stack, void (*entry)()) {
        auto** top = reinterpret_cast<void**>(stack + kStackBytes);
        *--top = nullptr;  // where `entry` would return to; also the alignment that a call leaves behind
        *--top = reinterpret_cast<void*>(entry);
        constexpr int kSavedRegisters = 6;
        for (int i = 0; i < kSavedRegisters; ++i) {
            *--top = nullptr;
        }
        stack_pointer = top;
    }

    [[gnu::always_inline]] static void Switch(Registers& from, Registers& to) {
        edgeformer_emulation_switch_stack(&from.stack_pointer, to.stack_pointer);
    }
};
#else
struct Registers {
    ucontext_t context{};

    void Prepare(unsigned char* stack, void (*entry)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = kStackBytes;
        makecontext(&context, entry, 0);
    }

    [[gnu::always_inline]] static void Switch(Registers& from, Registers& to) {
        swapcontext(&from.context, &to.context);
    }
};
#endif

// The stack of whoever resumes fibers.
struct Resumer {
    Registers registers;
    void* thread = nullptr;      // ThreadSanitizer's
    void* fake_stack = nullptr;  // AddressSanitizer's
    void const* stack = nullptr;
    size_t stack_bytes = 0;
};

Resumer resumer;

}  // namespace

struct Fiber::Context {
    Registers registers;
    unsigned char* stack = nullptr;
    void* thread = nullptr;
    void* fake_stack = nullptr;
    void (*body)() = nullptr;

    static Context* entering;
};

Fiber::Context* Fiber::Context::entering = nullptr;

void Fiber::Enter() {
    FinishSwitch(nullptr, &resumer.stack, &resumer.stack_bytes);
    Context::entering->body();
    std::fputs("emulation: the body of a fiber returned\n", stderr);
    std::abort();
}

Fiber::Fiber(void (*body)()) : context_(new Context) {
    context_->stack = MapStack();
    context_->thread = MakeThread();
    context_->body = body;
    context_->registers.Prepare(context_->stack, Enter);
}

// The fiber stays for ThreadSanitizer: a finished one would take its history, that is, races with it, along.
Fiber::~Fiber() {
    munmap(context_->stack, kStackBytes);
    delete context_;
}

void Fiber::Resume() {
    Context::entering = context_;
    resumer.thread = CurrentThread();
    StartSwitch(&resumer.fake_stack, context_->stack, kStackBytes);
    BecomeThread(context_->thread);
    Registers::Switch(resumer.registers, context_->registers);
    FinishSwitch(resumer.fake_stack, nullptr, nullptr);
}

void Fiber::Suspend() {
    StartSwitch(&context_->fake_stack, resumer.stack, resumer.stack_bytes);
    BecomeThread(resumer.thread);
    Registers::Switch(context_->registers, resumer.registers);
    FinishSwitch(context_->fake_stack, &resumer.stack, &resumer.stack_bytes);
}

}  // namespace edgeformer::emulation
