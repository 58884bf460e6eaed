#include "tensorrt/doubles/counting_cuda.h"

#include <cstdlib>
#include <cstring>
#include <memory>

#include "preprocessing/arguments.h"

namespace fake {
namespace {

using edgeformer::tensorrt::CudaFault;
using Guard = std::lock_guard<std::mutex>;

thread_local int pushed = 0;
char primary_context, own_context;

}  // namespace

CountingCuda::~CountingCuda() {
    for (auto const& [memory, bytes] : device_) {
        std::free(memory);
    }
    for (auto const& [memory, bytes] : mapped_) {
        std::free(memory);
    }
}

void CountingCuda::Expect(bool holds, char const* what) {
    if (!holds) {
        faults.push_back(what);
    }
}

void CountingCuda::Enqueue(void* stream, Run const& run) { Do(stream, "engine", run); }

void CountingCuda::Do(void* stream, std::string const& what, Work const& work) {
    {
        Guard const guard(mutex_);
        Expect(pushed > 0 || has_own_context, "enqueued with no context current");
        auto const capturing = capturing_.find(stream);
        if (capturing != capturing_.end()) {
            capturing->second.push_back(work);
            return;
        }
        log.emplace_back(stream, what);
    }
    work();
}

edgeformer::tensorrt::Device CountingCuda::DeviceAt(int32_t index) {
    if (index != 0) {
        throw CudaFault("EF768", "there is no CUDA device " + std::to_string(index));
    }
    return {"Fake GPU", 87, integrated};
}

void* CountingCuda::RetainContext(int32_t) {
    Guard const guard(mutex_);
    ++living;
    return has_own_context ? &own_context : &primary_context;
}

void CountingCuda::ReleaseContext(int32_t, void* context) noexcept {
    Guard const guard(mutex_);
    Expect(context == (has_own_context ? &own_context : &primary_context), "released another context");
    --living;
}

bool CountingCuda::PushContext(void* context) {
    Guard const guard(mutex_);
    if (context == &own_context || pushed > 0) {
        return false;
    }
    ++pushed;
    ++counts.pushes;
    return true;
}

void CountingCuda::PopContext() noexcept { --pushed; }

void* CountingCuda::Allocate(size_t bytes, std::map<void*, size_t>& memories) {
    Expect(pushed > 0 || has_own_context, "allocated with no context current");
    // Its exact size, so that AddressSanitizer sees what runs over.
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes) != 0) {
        throw std::bad_alloc();
    }
    ++living;
    memories[memory] = bytes;
    return memory;
}

void* CountingCuda::AllocateDevice(size_t bytes) {
    Guard const guard(mutex_);
    if (out_of_memory_after >= 0 && counts.device_allocations >= out_of_memory_after) {
        throw CudaFault("EF767", "the GPU's memory has run out");
    }
    ++counts.device_allocations;
    return Allocate(bytes, device_);
}

void CountingCuda::FreeDevice(void* memory) noexcept {
    Guard const guard(mutex_);
    Expect(pushed > 0 || has_own_context, "freed with no context current");
    Expect(device_.erase(memory) == 1, "freed device memory that is not");
    --living;
    std::free(memory);
}

void* CountingCuda::AllocateHost(size_t bytes) {
    Guard const guard(mutex_);
    ++counts.host_allocations;
    return Allocate(bytes, mapped_);
}

void CountingCuda::FreeHost(void* memory) noexcept {
    Guard const guard(mutex_);
    Expect(mapped_.erase(memory) == 1, "freed mapped memory that is not");
    --living;
    std::free(memory);
}

void* CountingCuda::DeviceAddress(void const* host) noexcept {
    Guard const guard(mutex_);
    for (auto const* memories : {&device_, &mapped_}) {
        auto after = memories->upper_bound(const_cast<void*>(host));
        if (after == memories->begin()) {
            continue;
        }
        auto const [memory, bytes] = *--after;
        uintptr_t const offset = reinterpret_cast<uintptr_t>(host) - reinterpret_cast<uintptr_t>(memory);
        if (offset < bytes) {
            return static_cast<char*>(memory) + offset;
        }
    }
    return nullptr;
}

void CountingCuda::CopyToDevice(void* device, void const* host, size_t bytes, void* stream) {
    Guard const guard(mutex_);
    Expect(streams_.count(stream) == 1, "copied on an unknown stream");
    ++counts.copies_to_device;
    std::memcpy(device, host, bytes);
}

void CountingCuda::CopyToHost(void* host, void const* device, size_t bytes, void* stream) {
    Guard const guard(mutex_);
    Expect(streams_.count(stream) == 1, "copied on an unknown stream");
    ++counts.copies_to_host;
    std::memcpy(host, device, bytes);
}

void CountingCuda::CopyOnDevice(void* to, void const* from, size_t bytes, void*) {
    Guard const guard(mutex_);
    ++counts.copies_on_device;
    std::memcpy(to, from, bytes);
}

void* CountingCuda::LoadModule(void const* image) {
    Guard const guard(mutex_);
    Expect(image != nullptr, "loaded a module of nothing");
    if (module_fails) {
        throw CudaFault("EF768", "cuModuleLoadData failed: CUDA_ERROR_NO_BINARY_FOR_GPU");
    }
    ++living;
    return *modules_.insert(new char).first;
}

void CountingCuda::UnloadModule(void* module) noexcept {
    Guard const guard(mutex_);
    Expect(modules_.erase(module) == 1, "unloaded an unknown module");
    --living;
    delete static_cast<char*>(module);
}

void* CountingCuda::KernelOf(void* module, char const* name) {
    Guard const guard(mutex_);
    Expect(modules_.count(module) == 1, "asked an unknown module for a kernel");
    return const_cast<std::string*>(&*kernels_.insert(name).first);
}

void CountingCuda::LaunchKernel(void* function, uint32_t blocks, uint32_t threads, uint32_t shared_bytes, void* stream,
                                void const* parameter) {
    std::string const name = *static_cast<std::string*>(function);
    {
        Guard const guard(mutex_);
        ++counts.kernels;
    }
    // The driver copies the parameter at once; here it has to be the kernel's own.
    auto const copy = std::make_shared<edgeformer::preprocessing::Arguments>(
        *static_cast<edgeformer::preprocessing::Arguments const*>(parameter));
    Do(stream, name, [=] {
        if (kernel) {
            kernel(name, blocks, threads, shared_bytes, copy.get());
        }
    });
}

void* CountingCuda::CreateStream() {
    Guard const guard(mutex_);
    ++living;
    return *streams_.insert(new char).first;
}

void CountingCuda::DestroyStream(void* stream) noexcept {
    Guard const guard(mutex_);
    Expect(streams_.erase(stream) == 1, "destroyed an unknown stream");
    --living;
    delete static_cast<char*>(stream);
}

void CountingCuda::Synchronize(void*) {
    Guard const guard(mutex_);
    ++counts.synchronizations;
}

bool CountingCuda::IsCapturing(void* stream) {
    Guard const guard(mutex_);
    return capturing_.count(stream) == 1 || (stream != nullptr && stream == captured_by_caller);
}

void CountingCuda::BeginCapture(void* stream) {
    Guard const guard(mutex_);
    Expect(capturing_.count(stream) == 0, "captured a stream twice");
    if (stream == nullptr) {
        throw CudaFault("EF768", "the default stream cannot be captured");
    }
    ++counts.captures;
    capturing_[stream] = {};
}

void* CountingCuda::EndCapture(void* stream) {
    Guard const guard(mutex_);
    auto const found = capturing_.find(stream);
    Expect(found != capturing_.end(), "ended a capture that was not begun");
    auto graph = std::make_unique<Graph>(std::move(found->second));
    capturing_.erase(found);
    if (capture_fails) {
        throw CudaFault("EF768", "cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED");
    }
    ++counts.graphs;
    ++living;
    return *graphs_.insert(graph.release()).first;
}

void CountingCuda::DestroyGraph(void* graph) noexcept {
    Guard const guard(mutex_);
    Expect(graphs_.erase(static_cast<Graph*>(graph)) == 1, "destroyed an unknown graph");
    --living;
    delete static_cast<Graph*>(graph);
}

void CountingCuda::Launch(void* graph, void*) {
    Graph runs;
    {
        Guard const guard(mutex_);
        Expect(graphs_.count(static_cast<Graph*>(graph)) == 1, "launched an unknown graph");
        ++counts.launches;
        runs = *static_cast<Graph*>(graph);
    }
    for (Work const& run : runs) {
        run();
    }
}

}  // namespace fake
