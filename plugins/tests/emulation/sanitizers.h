// AddressSanitizer's hooks for stack switches and poisoned memory; nothing without it.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace edgeformer::emulation {

#if defined(__SANITIZE_ADDRESS__)
inline void StartSwitch(void** fake_stack, void const* stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
inline void FinishSwitch(void* fake_stack, void const** old_stack, size_t* old_bytes) {
    __sanitizer_finish_switch_fiber(fake_stack, old_stack, old_bytes);
}
inline void PoisonMemory(void* begin, size_t bytes) { __asan_poison_memory_region(begin, bytes); }
inline void UnpoisonMemory(void* begin, size_t bytes) { __asan_unpoison_memory_region(begin, bytes); }
#else
inline void StartSwitch(void**, void const*, size_t) {}
inline void FinishSwitch(void*, void const**, size_t*) {}
inline void PoisonMemory(void*, size_t) {}
inline void UnpoisonMemory(void*, size_t) {}
#endif

}  // namespace edgeformer::emulation
