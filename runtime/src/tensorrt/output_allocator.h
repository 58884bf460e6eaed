// Outputs whose size only a run can tell: TensorRT's IOutputAllocator.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend.h"
#include "tensorrt/abi.h"
#include "tensorrt/memory.h"
#include "tensorrt/values.h"

namespace edgeformer::tensorrt {

// Where TensorRT puts one such output: the caller's memory where it is large enough, else memory of its own, which
// grows to the largest that was needed.
class OutputAllocator {
public:
    OutputAllocator(Abi const& abi, Cuda& cuda);
    ~OutputAllocator();
    OutputAllocator(OutputAllocator const&) = delete;
    OutputAllocator& operator=(OutputAllocator const&) = delete;

    void* interface() noexcept;  // IOutputAllocator*

    // Before a run: the caller's memory, where the GPU reaches it; null: there is none.
    void Begin(void* memory, uint64_t bytes) noexcept;

    // After it: the shape that TensorRT told, and where the output is. Null: it told none, or got no memory.
    Shape const* shape() const noexcept { return is_told_ ? &shape_ : nullptr; }
    void* memory() const noexcept { return memory_; }
    std::string const& problem() const noexcept { return problem_; }  // why it got none

    // What TensorRT calls, while a run is enqueued.
    void* Reallocate(uint64_t bytes, uint64_t alignment) noexcept;
    void Notify(Dims const& shape) noexcept;

private:
    class Interface;
    class PlainInterface;
    class AsyncInterface;

    Cuda& cuda_;
    std::unique_ptr<Interface> interface_;
    void* given_ = nullptr;
    uint64_t given_bytes_ = 0;
    DeviceMemory own_;
    uint64_t own_bytes_ = 0;
    void* memory_ = nullptr;
    Shape shape_;
    bool is_told_ = false;
    std::string problem_;
};

}  // namespace edgeformer::tensorrt
