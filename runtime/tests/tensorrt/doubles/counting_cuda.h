// CUDA for tests: counts what is asked of it, checks that what it gets is its own, and does a stream's work at once, or
// notes it in a graph.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tensorrt/cuda.h"
#include "tensorrt/doubles/fake_tensorrt.h"

namespace fake {

struct Counts {
    int device_allocations = 0;
    int host_allocations = 0;
    int copies_to_device = 0;
    int copies_to_host = 0;
    int copies_on_device = 0;
    int synchronizations = 0;
    int captures = 0;
    int graphs = 0;    // instantiated
    int launches = 0;  // of graphs
    int kernels = 0;   // launched by the runtime itself
    int pushes = 0;
};

class CountingCuda final : public edgeformer::tensorrt::Cuda {
public:
    // What it does.
    bool integrated = false;
    int out_of_memory_after = -1;        // device allocations; -1: never
    bool capture_fails = false;          // EndCapture refuses what was captured
    bool has_own_context = false;        // the calling thread has a context of the application's
    void* captured_by_caller = nullptr;  // a stream
    bool module_fails = false;           // no kernel is for this GPU
    // What becomes of a kernel's launch; the default is nothing.
    std::function<void(std::string const& kernel, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                       void const* parameter)>
        kernel;

    Counts counts;
    int living = 0;  // allocations, streams, graphs and retained contexts
    std::vector<std::string> faults;
    std::vector<std::pair<void*, std::string>> log;  // of streams, and what they did: "engine", or a kernel's name

    ~CountingCuda() override;

    // Gives the work of an enqueue to a stream.
    void Enqueue(void* stream, Run const& run);

    int32_t DriverVersion() override { return 12040; }
    int32_t DeviceCount() override { return 1; }
    edgeformer::tensorrt::Device DeviceAt(int32_t index) override;
    void* RetainContext(int32_t device) override;
    void ReleaseContext(int32_t device, void* context) noexcept override;
    bool PushContext(void* context) override;
    void PopContext() noexcept override;
    void* AllocateDevice(size_t bytes) override;
    void FreeDevice(void* memory) noexcept override;
    void* AllocateHost(size_t bytes) override;
    void FreeHost(void* memory) noexcept override;
    void* DeviceAddress(void const* host) noexcept override;
    void CopyToDevice(void* device, void const* host, size_t bytes, void* stream) override;
    void CopyToHost(void* host, void const* device, size_t bytes, void* stream) override;
    void CopyOnDevice(void* to, void const* from, size_t bytes, void* stream) override;
    void* CreateStream() override;
    void DestroyStream(void* stream) noexcept override;
    void Synchronize(void* stream) override;
    void* LoadModule(void const* image) override;
    void UnloadModule(void* module) noexcept override;
    void* KernelOf(void* module, char const* name) override;
    void LaunchKernel(void* kernel, uint32_t blocks, uint32_t threads, uint32_t shared_bytes, void* stream,
                      void const* parameter) override;
    bool IsCapturing(void* stream) override;
    void BeginCapture(void* stream) override;
    void* EndCapture(void* stream) override;
    void DestroyGraph(void* graph) noexcept override;
    void Launch(void* graph, void* stream) override;

private:
    using Work = std::function<void()>;
    using Graph = std::vector<Work>;

    void Expect(bool holds, char const* what);
    void Do(void* stream, std::string const& what, Work const& work);
    void* Allocate(size_t bytes, std::map<void*, size_t>& memories);

    std::mutex mutex_;
    std::map<void*, size_t> device_;
    std::map<void*, size_t> mapped_;
    std::set<void*> streams_;
    std::set<Graph*> graphs_;
    std::map<void*, Graph> capturing_;
    std::set<void*> modules_;
    std::set<std::string> kernels_;  // that were asked for
};

}  // namespace fake
