// What the first bytes of an engine tell.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "tensorrt/abi.h"

namespace edgeformer::tensorrt {

// What TensorRT-RTX writes at the beginning of an engine. NVIDIA documents none of it: these two fields were right in
// every engine of TensorRT-RTX 1.7.1 that was looked at. What else the header holds, among it the compute capabilities,
// is the library's to say (Runtime::Judge).
struct RtxHeader {
    uint64_t file_bytes;
    int32_t version;  // as Library::version: 10701
};

// Empty where the bytes do not begin as an engine of TensorRT-RTX, or are fewer than its header. Of engines of TensorRT
// 10 and 11 nothing is known that could be read: TensorRT has neither a description of their header nor a question
// about it, and says what it thinks of one when it deserializes it.
std::optional<RtxHeader> ReadRtxHeader(void const* engine, size_t bytes) noexcept;

// Whether the bytes begin as an engine of TensorRT-RTX does.
bool BeginsAsRtxEngine(void const* engine, size_t bytes) noexcept;

}  // namespace edgeformer::tensorrt
