// Hooks of AddressSanitizer and ThreadSanitizer for code that changes stacks and has threads of its own; nothing
// without them.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__) && !defined(EDGEFORMER_WATCHES_THREADS)
#define EDGEFORMER_WATCHES_THREADS 1
#endif
#if defined(EDGEFORMER_WATCHES_THREADS)
#include <sanitizer/tsan_interface.h>
extern "C" {
// In the runtime, but in no header.
void AnnotateIgnoreReadsBegin(char const* file, int line);
void AnnotateIgnoreReadsEnd(char const* file, int line);
void AnnotateIgnoreWritesBegin(char const* file, int line);
void AnnotateIgnoreWritesEnd(char const* file, int line);
}
#endif

namespace edgeformer::emulation {

#if defined(__SANITIZE_ADDRESS__)
inline void StartSwitch(void** fake_stack, void const* stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
inline void FinishSwitch(void* fake_stack, void const** old_stack, size_t* old_bytes) {
    __sanitizer_finish_switch_fiber(fake_stack, old_stack, old_bytes);
}
#else
inline void StartSwitch(void**, void const*, size_t) {}
inline void FinishSwitch(void*, void const**, size_t*) {}
#endif

#if defined(EDGEFORMER_WATCHES_THREADS)
inline constexpr bool kWatchesThreads = true;
inline void* CurrentThread() { return __tsan_get_current_fiber(); }
// Without an edge between the two threads: the order in which the emulation runs them is no order on a GPU. Inlined,
// because a function that began as one thread must not end as another.
[[gnu::always_inline]] inline void BecomeThread(void* thread) {
    __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync);
}
// A new thread is ordered after what its maker knows. This maker knows nothing.
inline void* MakeThread() {
    static void* const maker = __tsan_create_fiber(0);
    void* const self = CurrentThread();
    BecomeThread(maker);
    void* const thread = __tsan_create_fiber(0);
    BecomeThread(self);
    return thread;
}
// What happened before a Release happens before what follows an Acquire of the same token.
inline void Release(void* token) { __tsan_release(token); }
inline void Acquire(void* token) { __tsan_acquire(token); }

// Memory accesses in its scope, and what it allocates and frees, belong to the emulation, not to the program under
// test.
class Unwatched {
public:
    Unwatched() {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~Unwatched() {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
    Unwatched(Unwatched const&) = delete;
    Unwatched& operator=(Unwatched const&) = delete;
};
#else
inline constexpr bool kWatchesThreads = false;
inline void* CurrentThread() { return nullptr; }
inline void* MakeThread() { return nullptr; }
inline void BecomeThread(void*) {}
inline void Release(void*) {}
inline void Acquire(void*) {}

class Unwatched {
public:
    Unwatched() {}  // user-provided, so that an otherwise unused object is no warning
    Unwatched(Unwatched const&) = delete;
    Unwatched& operator=(Unwatched const&) = delete;
};
#endif

}  // namespace edgeformer::emulation
