// Values that cross TensorRT's interfaces, the same in TensorRT 10, 11 and TensorRT-RTX.
#pragma once

#include <cstdint>

namespace edgeformer::tensorrt {

struct Dims {
    int32_t count;  // -1: invalid
    int64_t sizes[8];
};
static_assert(sizeof(Dims) == 72);

enum class DataType : int32_t {
    kFloat = 0,
    kHalf = 1,
    kInt8 = 2,
    kInt32 = 3,
    kBool = 4,
    kUint8 = 5,
    kFp8 = 6,
    kBfloat16 = 7,
    kInt64 = 8,
    kInt4 = 9,
    kFp4 = 10,
    kE8m0 = 11
};

enum class TensorMode : int32_t { kNone = 0, kInput = 1, kOutput = 2 };
enum class TensorLocation : int32_t { kDevice = 0, kHost = 1 };
enum class ProfileShape : int32_t { kMinimum = 0, kOptimum = 1, kMaximum = 2 };
enum class AllocationStrategy : int32_t { kStatic = 0, kOnProfileChange = 1, kUserManaged = 2 };
inline constexpr int32_t kLinearFormat = 0;

// TensorRT-RTX: when kernels for the actual shapes replace the general ones. kLazy: behind the application's back.
enum class KernelSpecialization : int32_t { kLazy = 0, kEager = 1, kNone = 2 };

// TensorRT-RTX's judgement of an engine's header.
enum class Validity : int32_t { kValid = 0, kSuboptimal = 1, kInvalid = 2 };

// Bits of its diagnostics.
enum Diagnostic : uint64_t {
    kVersionMismatch = 1,
    kUnsupportedComputeCapability = 2,
    kOldCudaDriver = 4,
    kOldCudaRuntime = 8,
    kInsufficientGpuMemory = 16,
    kMalformedEngine = 32,
    kCudaFailure = 64
};

enum class Severity : int32_t { kInternalError = 0, kError = 1, kWarning = 2, kInfo = 3, kVerbose = 4 };

}  // namespace edgeformer::tensorrt
