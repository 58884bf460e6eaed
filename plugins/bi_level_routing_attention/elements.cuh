// Several neighbouring elements in one memory access.
#pragma once

#include <cstdint>

#include "bi_level_routing_attention/device.cuh"

namespace edgeformer::bi_level_routing_attention {

inline constexpr int32_t kVectorBytes = 16;  // the widest access of a thread

// The alignment makes the compiler read and write it with one instruction (two where it is 32 bytes wide).
template <class T, int32_t kCount>
struct alignas(sizeof(T) * kCount < kVectorBytes ? sizeof(T) * kCount : kVectorBytes) Elements {
    T at[kCount];
};

// `first` must be aligned as Elements<T, kCount> is.
template <int32_t kCount, class T>
__device__ inline Elements<T, kCount> LoadElements(T const* first) {
    return *reinterpret_cast<Elements<T, kCount> const*>(first);
}

// Whether a thread may access kVectorBytes at this address.
inline bool IsAligned(void const* address) { return reinterpret_cast<uintptr_t>(address) % kVectorBytes == 0; }

}  // namespace edgeformer::bi_level_routing_attention
