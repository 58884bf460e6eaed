// Stand-in for plugins/device/intrinsics.cuh: the same functions, lane by lane over the emulator's warp operations.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator.h"

namespace edgeformer {

// Whether the kernels for tensor cores are compiled.
inline constexpr bool kTensorCores = true;

inline unsigned char* SharedMemory() { return emulation::SharedMemory(); }

// --- memory ---

namespace emulation {
inline void RequireAligned(void const* address) {
    if (reinterpret_cast<uintptr_t>(address) % 16 != 0) {
        Die("a 16-byte access to an address that is not a multiple of 16");
    }
}
}  // namespace emulation

inline uint4 LoadVector(void const* from) {
    emulation::RequireAligned(from);
    return *static_cast<uint4 const*>(from);
}

inline uint2 LoadPair(void const* from) { return *static_cast<uint2 const*>(from); }

inline void StoreVector(void* global, uint4 value) {
    emulation::RequireAligned(global);
    *static_cast<uint4*>(global) = value;
}

inline void CopyAsync(void* shared, void const* global, bool present) { emulation::CopyAsync(shared, global, present); }
inline void CommitCopies() { emulation::CommitCopies(); }
template <int32_t kPending>
void WaitCopies() {
    emulation::WaitCopies(kPending);
}

inline void LoadMatricesTransposed(uint32_t (&registers)[4], void const* shared_row) {
    struct Registers {
        uint32_t of[4];
    };
    auto transpose = [](uint4 const* const* in, Registers* const* out) {
        for (int32_t matrix = 0; matrix < 4; ++matrix) {
            uint16_t rows[8][8];
            for (int32_t row = 0; row < 8; ++row) {
                std::memcpy(rows[row], in[8 * matrix + row], sizeof(rows[row]));
            }
            for (int32_t lane = 0; lane < emulation::kLanes; ++lane) {
                int32_t const row = lane % 4 * 2;
                out[lane]->of[matrix] = rows[row][lane / 4] | static_cast<uint32_t>(rows[row + 1][lane / 4]) << 16;
            }
        }
    };
    Registers const result =
        emulation::Collective<uint4, Registers>("ldmatrix", emulation::kAllLanes, LoadVector(shared_row), transpose);
    std::memcpy(registers, result.of, sizeof(registers));
}

// --- tensor cores ---

namespace emulation {

// The elements of the fragments in a register, 4 / sizeof(T) of them.
inline void Unpack(uint32_t bits, float (&elements)[2], __half /*type*/) {
    elements[0] = __half2float({static_cast<uint16_t>(bits)});
    elements[1] = __half2float({static_cast<uint16_t>(bits >> 16)});
}
inline void Unpack(uint32_t bits, float (&elements)[2], __nv_bfloat16 /*type*/) {
    elements[0] = __uint_as_float(bits << 16);
    elements[1] = __uint_as_float(bits & 0xffff0000U);
}
inline void Unpack(uint32_t bits, int32_t (&elements)[4], int8_t /*type*/) {
    for (int32_t i = 0; i < 4; ++i) {
        elements[i] = static_cast<int8_t>(bits >> 8 * i & 0xffU);
    }
}

// m16n8k16 of 16-bit and m16n8k32 of 8-bit elements: a register holds kPacked neighbours along k.
template <class T, class Accumulator>
void Mma(char const* what, Accumulator (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
    constexpr int32_t kPacked = 4 / sizeof(T);
    constexpr int32_t kDepth = 8 * kPacked;
    struct Fragments {
        Accumulator d[4];
        uint32_t a[4];
        uint32_t b[2];
    };
    struct Sums {
        Accumulator d[4];
    };
    auto multiply = [](Fragments const* const* in, Sums* const* out) {
        Accumulator left[16][kDepth];
        Accumulator right[8][kDepth];
        for (int32_t lane = 0; lane < kLanes; ++lane) {
            int32_t const g = lane / 4;
            int32_t const k = lane % 4 * kPacked;
            Accumulator elements[kPacked];
            for (int32_t i = 0; i < 4; ++i) {
                Unpack(in[lane]->a[i], elements, T{});
                std::memcpy(&left[g + i % 2 * 8][k + i / 2 * (kDepth / 2)], elements, sizeof(elements));
            }
            for (int32_t i = 0; i < 2; ++i) {
                Unpack(in[lane]->b[i], elements, T{});
                std::memcpy(&right[g][k + i * (kDepth / 2)], elements, sizeof(elements));
            }
        }
        for (int32_t lane = 0; lane < kLanes; ++lane) {
            for (int32_t i = 0; i < 4; ++i) {
                Accumulator const* row = left[lane / 4 + i / 2 * 8];
                Accumulator const* column = right[lane % 4 * 2 + i % 2];
                Accumulator sum = in[lane]->d[i];
                for (int32_t k = 0; k < kDepth; ++k) {
                    sum += row[k] * column[k];
                }
                out[lane]->d[i] = sum;
            }
        }
    };
    Fragments const own{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    Sums const sums = Collective<Fragments, Sums>(what, kAllLanes, own, multiply);
    std::memcpy(d, sums.d, sizeof(d));
}

}  // namespace emulation

inline void MmaF16(float (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
    emulation::Mma<__half>("mma f16", d, a, b0, b1);
}
inline void MmaBf16(float (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
    emulation::Mma<__nv_bfloat16>("mma bf16", d, a, b0, b1);
}
inline void MmaS8(int32_t (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
    emulation::Mma<int8_t>("mma s8", d, a, b0, b1);
}

// --- arithmetic ---

inline float Exp2(float x) {
    float const result = std::exp2(x);
    return result < 0x1p-126F ? 0.F : result;
}

inline float Reciprocal(float x) { return 1.F / x; }

inline uint32_t BytePermute(uint32_t a, uint32_t b, uint32_t selector) {
    uint64_t const bytes = static_cast<uint64_t>(b) << 32 | a;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; ++i) {
        uint32_t const byte = selector >> 4 * i & 7U;
        result |= static_cast<uint32_t>(bytes >> 8 * byte & 0xffU) << 8 * i;
    }
    return result;
}

inline uint32_t PackHalf2(float low, float high) {
    return __float2half_rn(low).bits | static_cast<uint32_t>(__float2half_rn(high).bits) << 16;
}
inline uint32_t PackBf162(float low, float high) {
    return __float2bfloat16_rn(low).bits | static_cast<uint32_t>(__float2bfloat16_rn(high).bits) << 16;
}
inline uint32_t SubtractHalf2(uint32_t a, uint32_t b) {
    float left[2];
    float right[2];
    emulation::Unpack(a, left, __half{});
    emulation::Unpack(b, right, __half{});
    return PackHalf2(left[0] - right[0], left[1] - right[1]);
}

// --- programmatic dependent launch ---

inline void WaitForPreviousKernel() { emulation::WaitForPreviousKernel(); }
inline void LaunchNextKernel() {}

}  // namespace edgeformer
