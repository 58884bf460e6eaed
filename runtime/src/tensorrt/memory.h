// Owners of what CUDA gives.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "tensorrt/cuda.h"

namespace edgeformer::tensorrt {

// Makes a CUDA context the calling thread's while it lives, and leaves the thread's own as it was.
class ContextScope {
public:
    ContextScope(Cuda& cuda, void* context) : cuda_(cuda), pushed_(cuda.PushContext(context)) {}
    ~ContextScope() {
        if (pushed_) {
            cuda_.PopContext();
        }
    }
    ContextScope(ContextScope const&) = delete;
    ContextScope& operator=(ContextScope const&) = delete;

private:
    Cuda& cuda_;
    bool pushed_;
};

// Owns what one of Cuda's methods made and another one ends. The CUDA context is current where it ends.
template <void (Cuda::*End)(void*) noexcept>
class CudaOwned {
public:
    CudaOwned() = default;
    CudaOwned(Cuda& cuda, void* object) noexcept : cuda_(&cuda), object_(object) {}
    CudaOwned(CudaOwned&& other) noexcept : cuda_(other.cuda_), object_(std::exchange(other.object_, nullptr)) {}
    CudaOwned& operator=(CudaOwned&& other) noexcept {
        std::swap(cuda_, other.cuda_);
        std::swap(object_, other.object_);
        return *this;
    }
    ~CudaOwned() {
        if (object_ != nullptr) {
            (cuda_->*End)(object_);
        }
    }

    void* get() const noexcept { return object_; }
    explicit operator bool() const noexcept { return object_ != nullptr; }

private:
    Cuda* cuda_ = nullptr;
    void* object_ = nullptr;
};

using DeviceMemory = CudaOwned<&Cuda::FreeDevice>;
using HostMemory = CudaOwned<&Cuda::FreeHost>;
using Module = CudaOwned<&Cuda::UnloadModule>;
using Stream = CudaOwned<&Cuda::DestroyStream>;
using Graph = CudaOwned<&Cuda::DestroyGraph>;

}  // namespace edgeformer::tensorrt
