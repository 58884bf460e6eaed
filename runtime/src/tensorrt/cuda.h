// What the TensorRT backend needs of CUDA.
//
// Behind an interface, so that tests count its calls. The real one (cuda_driver.cpp) is the driver API, opened at run
// time: libcuda.so.1 comes with the driver, so it is there wherever an engine can run, at any CUDA version; the runtime
// library libcudart is a part of the toolkit, in as many versions as there are toolkits. Streams, memory and contexts
// of the two are the same objects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "fault.h"

namespace edgeformer::tensorrt {

struct Device {
    std::string name;
    int32_t sm = 0;           // 87: compute capability 8.7
    bool integrated = false;  // shares the host's memory and can map it
};

// A call that CUDA refused.
class CudaFault : public Fault {
public:
    CudaFault(char const* code, std::string const& reason)
        : Fault(EDGEFORMER_CUDA_ERROR, code, reason), reason_(reason) {}
    std::string const& reason() const { return reason_; }  // without the code

private:
    std::string reason_;
};

// Methods that can fail throw CudaFault with the call and CUDA's words; those that are noexcept are for cleaning up.
// Except for the first four they need a current context (CurrentContext).
class Cuda {
public:
    virtual ~Cuda() = default;

    // 13000: CUDA 13.0 is the newest that the driver knows.
    virtual int32_t DriverVersion() = 0;
    virtual int32_t DeviceCount() = 0;
    virtual Device DeviceAt(int32_t index) = 0;

    // The context that work for this device belongs to: the calling thread's, where that is one of this device (an
    // application's own, such as PyCUDA's), else the device's primary context, which the CUDA runtime uses. Given back
    // with ReleaseContext.
    virtual void* RetainContext(int32_t device) = 0;
    virtual void ReleaseContext(int32_t device, void* context) noexcept = 0;
    // Makes it the calling thread's. True if it was not, and PopContext has to follow.
    virtual bool PushContext(void* context) = 0;
    virtual void PopContext() noexcept = 0;

    virtual void* AllocateDevice(size_t bytes) = 0;
    virtual void FreeDevice(void* memory) noexcept = 0;
    // Page-locked, and mapped into the device's addresses.
    virtual void* AllocateHost(size_t bytes) = 0;
    virtual void FreeHost(void* memory) noexcept = 0;
    // Where the device reaches this host memory; null where it does not.
    virtual void* DeviceAddress(void const* host) noexcept = 0;

    virtual void CopyToDevice(void* device, void const* host, size_t bytes, void* stream) = 0;
    virtual void CopyToHost(void* host, void const* device, size_t bytes, void* stream) = 0;
    virtual void CopyOnDevice(void* to, void const* from, size_t bytes, void* stream) = 0;

    virtual void* CreateStream() = 0;
    virtual void DestroyStream(void* stream) noexcept = 0;
    virtual void Synchronize(void* stream) = 0;

    // Compiled kernels (a fat binary), loaded into the current context. Throws where none of them is for its device.
    virtual void* LoadModule(void const* image) = 0;
    virtual void UnloadModule(void* module) noexcept = 0;
    // A kernel by its name, ready to be launched.
    virtual void* KernelOf(void* module, char const* name) = 0;
    // Enqueues a launch of one-dimensional blocks; `parameter` is the kernel's only one, and copied.
    virtual void LaunchKernel(void* kernel, uint32_t blocks, uint32_t threads, uint32_t shared_bytes, void* stream,
                              void const* parameter) = 0;

    // Whether somebody is capturing this stream at the moment.
    virtual bool IsCapturing(void* stream) = 0;
    // What this thread enqueues on the stream from now on is noted instead of done.
    virtual void BeginCapture(void* stream) = 0;
    // The end of it, as a graph that can be launched. Throws where something was enqueued that cannot be captured; the
    // stream is as before then.
    virtual void* EndCapture(void* stream) = 0;
    virtual void DestroyGraph(void* graph) noexcept = 0;
    virtual void Launch(void* graph, void* stream) = 0;
};

// The driver's. Null where there is no driver or no GPU: `problem` says why, and what to do.
std::shared_ptr<Cuda> OpenCuda(std::string* problem);

}  // namespace edgeformer::tensorrt
