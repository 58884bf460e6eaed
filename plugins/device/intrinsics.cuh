// What the kernels use of the GPU beyond CUDA C++: one function per instruction, in PTX. The tests build the same
// kernels against plugins/tests/emulation/device/intrinsics.cuh, which has the same functions.
//
// Tensor cores and asynchronous copies need compute capability 8.0; for GPUs below, the functions compile to nothing
// and the kernels that use them are never launched.
//
// Fragments: a warp holds a matrix of an mma in the registers of its lanes; g = lane / 4 and t = lane % 4.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace edgeformer {

// Whether the kernels for tensor cores are compiled: they need compute capability 8.0.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr bool kTensorCores = false;
#else
inline constexpr bool kTensorCores = true;
#endif

// All kernels use this one symbol, never static __shared__ arrays, so that the emulation can give every block fresh,
// poisoned memory of the exact size that was asked for.
extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];

// The block's dynamic shared memory.
__device__ __forceinline__ unsigned char* SharedMemory() { return dynamic_shared_memory; }

// --- memory ---

__device__ __forceinline__ uint4 LoadVector(void const* from) { return *static_cast<uint4 const*>(from); }

__device__ __forceinline__ uint2 LoadPair(void const* from) { return *static_cast<uint2 const*>(from); }

// nvcc may split the assignment of a uint4 into four stores; this is one.
__device__ __forceinline__ void StoreVector(void* global, uint4 value) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(global)), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
                 : "memory");
}

// Starts to copy 16 bytes into shared memory, past the first-level cache; zeros if not present: nothing is read then.
__device__ __forceinline__ void CopyAsync(void* shared, void const* global, bool present) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))), "l"(__cvta_generic_to_global(global)),
                   "r"(present ? 16 : 0)
                 : "memory");
#endif
}

// The copies that the thread has started since its last call make a group.
__device__ __forceinline__ void CommitCopies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// Until at most the thread's latest kPending groups are on their way. Other threads see the data after a barrier.
template <int32_t kPending>
__device__ __forceinline__ void WaitCopies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit elements from shared memory, transposed: lanes 8m .. 8m + 7 give the rows of matrix m, 16
// aligned bytes each; registers[m] becomes rows 2t (low half) and 2t + 1 of column g.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&registers)[4], void const* shared_row) {
#if __CUDA_ARCH__ >= 800
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared_row)))
                 : "memory");
#endif
}

// --- tensor cores: d += a * b ---
//
// d is [16][8] in FP32 or INT32: elements 0 and 1 are columns 2t and 2t + 1 of row g, elements 2 and 3 of row g + 8.

// a is [16][16]: registers 0 and 1 hold columns 2t, 2t + 1 of rows g and g + 8, registers 2 and 3 columns 2t + 8, 2t
// + 9. b is [16][8]: b0 holds rows 2t, 2t + 1 of column g, b1 rows 2t + 8, 2t + 9. The lower index is in the low half.
__device__ __forceinline__ void MmaF16(float (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

__device__ __forceinline__ void MmaBf16(float (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// a is [16][32] of int8: registers 0 and 1 hold columns 4t .. 4t + 3 of rows g and g + 8, registers 2 and 3 columns
// 4t + 16 .. 4t + 19. b is [32][8]: b0 holds rows 4t .. 4t + 3 of column g, b1 rows 4t + 16 .. 4t + 19.
__device__ __forceinline__ void MmaS8(int32_t (&d)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// --- arithmetic ---

// 2^x within 2 units in the last place; results below 2^-126 are 0.
__device__ __forceinline__ float Exp2(float x) {
    float result = 0.F;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// 1 / x within 1 unit in the last place; infinity for 0.
__device__ __forceinline__ float Reciprocal(float x) {
    float result = 0.F;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// Byte i of the result is the byte that the i-th hexadecimal digit of the selector, from the right, names: 0 to 3 of a,
// 4 to 7 of b.
__device__ __forceinline__ uint32_t BytePermute(uint32_t a, uint32_t b, uint32_t selector) {
    return __byte_perm(a, b, selector);
}

// Two numbers rounded to nearest even, `low` in the low half.
__device__ __forceinline__ uint32_t PackHalf2(float low, float high) {
    uint32_t result = 0;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

__device__ __forceinline__ uint32_t PackBf162(float low, float high) {
#if __CUDA_ARCH__ >= 800
    uint32_t result = 0;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
#else
    return 0;
#endif
}

// a - b of two FP16 numbers each.
__device__ __forceinline__ uint32_t SubtractHalf2(uint32_t a, uint32_t b) {
    uint32_t result = 0;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

// --- programmatic dependent launch ---

// Until all work of the previous kernel on the stream is done and visible; nothing before compute capability 9.0, where
// kernels do not overlap.
__device__ __forceinline__ void WaitForPreviousKernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" : : : "memory");
#endif
}

// The next kernel on the stream may be launched once all blocks have called this or ended.
__device__ __forceinline__ void LaunchNextKernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" : : : "memory");
#endif
}

}  // namespace edgeformer
