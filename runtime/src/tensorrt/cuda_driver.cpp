#include <string>
#include <type_traits>
#include <utility>

#include "common/text.h"
#include "dynamic_library.h"
#include "tensorrt/cuda.h"

namespace edgeformer::tensorrt {
namespace {

using Result = int32_t;              // CUresult
using Address = unsigned long long;  // CUdeviceptr
using Handle = void*;                // CUcontext, CUstream, CUgraph, CUgraphExec, CUmodule, CUfunction

// Values of cuda.h; runtime/tests/tensorrt/cuda_values_test.cpp holds them to it where a toolkit is installed.
constexpr char kLibrary[] = "libcuda.so.1";
constexpr Result kSuccess = 0;
constexpr Result kOutOfMemory = 2;
constexpr Result kNoDevice = 100;
constexpr Result kSystemDriverMismatch = 803;
constexpr int32_t kIntegrated = 18;
constexpr int32_t kCanMapHostMemory = 19;
constexpr int32_t kComputeCapabilityMajor = 75;
constexpr int32_t kComputeCapabilityMinor = 76;
constexpr int32_t kDevicePointer = 3;
constexpr uint32_t kNonBlocking = 1;
constexpr uint32_t kPortableAndMapped = 1 | 2;
constexpr int32_t kThreadLocal = 1;

// Every function of the driver that is used, with the name that it is exported under.
struct Functions {
    Result (*Init)(uint32_t);
    Result (*DriverGetVersion)(int32_t*);
    Result (*GetErrorName)(Result, char const**);
    Result (*GetErrorString)(Result, char const**);
    Result (*DeviceGetCount)(int32_t*);
    Result (*DeviceGet)(int32_t*, int32_t);
    Result (*DeviceGetName)(char*, int32_t, int32_t);
    Result (*DeviceGetAttribute)(int32_t*, int32_t, int32_t);
    Result (*DevicePrimaryCtxRetain)(Handle*, int32_t);
    Result (*DevicePrimaryCtxRelease)(int32_t);
    Result (*CtxGetCurrent)(Handle*);
    Result (*CtxGetDevice)(int32_t*);
    Result (*CtxPushCurrent)(Handle);
    Result (*CtxPopCurrent)(Handle*);
    Result (*MemAlloc)(Address*, size_t);
    Result (*MemFree)(Address);
    Result (*MemGetInfo)(size_t*, size_t*);
    Result (*MemHostAlloc)(void**, size_t, uint32_t);
    Result (*MemFreeHost)(void*);
    Result (*PointerGetAttribute)(void*, int32_t, Address);
    Result (*MemcpyHtoDAsync)(Address, void const*, size_t, Handle);
    Result (*MemcpyDtoHAsync)(void*, Address, size_t, Handle);
    Result (*MemcpyDtoDAsync)(Address, Address, size_t, Handle);
    Result (*ModuleLoadData)(Handle*, void const*);
    Result (*ModuleUnload)(Handle);
    Result (*ModuleGetFunction)(Handle*, Handle, char const*);
    Result (*LaunchKernel)(Handle, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, Handle, void**,
                           void**);
    Result (*StreamCreate)(Handle*, uint32_t);
    Result (*StreamDestroy)(Handle);
    Result (*StreamSynchronize)(Handle);
    Result (*StreamIsCapturing)(Handle, int32_t*);
    Result (*StreamBeginCapture)(Handle, int32_t);
    Result (*StreamEndCapture)(Handle, Handle*);
    Result (*GraphInstantiateWithFlags)(Handle*, Handle, unsigned long long);
    Result (*GraphDestroy)(Handle);
    Result (*GraphExecDestroy)(Handle);
    Result (*GraphLaunch)(Handle, Handle);
};

Address AddressOf(void const* memory) { return reinterpret_cast<Address>(memory); }

class DriverCuda final : public Cuda {
public:
    explicit DriverCuda(Functions const& functions) : f_(functions) {}

    int32_t DriverVersion() override {
        int32_t version = 0;
        Check(f_.DriverGetVersion(&version), "cuDriverGetVersion");
        return version;
    }

    int32_t DeviceCount() override {
        int32_t count = 0;
        Check(f_.DeviceGetCount(&count), "cuDeviceGetCount");
        return count;
    }

    Device DeviceAt(int32_t index) override {
        int32_t const device = Ordinal(index);
        char name[256] = {};
        Check(f_.DeviceGetName(name, sizeof(name) - 1, device), "cuDeviceGetName");
        Device facts;
        facts.name = name;
        facts.sm = 10 * Attribute(device, kComputeCapabilityMajor) + Attribute(device, kComputeCapabilityMinor);
        facts.integrated = Attribute(device, kIntegrated) != 0 && Attribute(device, kCanMapHostMemory) != 0;
        return facts;
    }

    void* RetainContext(int32_t device) override {
        int32_t const wanted = Ordinal(device);
        Handle current = nullptr;
        Check(f_.CtxGetCurrent(&current), "cuCtxGetCurrent");
        int32_t of_current = -1;
        if (current != nullptr) {
            Check(f_.CtxGetDevice(&of_current), "cuCtxGetDevice");
        }
        // Retained also where it is not used: the two are then released alike, whatever is current by that time.
        Handle primary = nullptr;
        Check(f_.DevicePrimaryCtxRetain(&primary, wanted), "cuDevicePrimaryCtxRetain");
        return current != nullptr && of_current == wanted ? current : primary;
    }

    void ReleaseContext(int32_t device, void*) noexcept override {
        int32_t ordinal = 0;
        if (f_.DeviceGet(&ordinal, device) == kSuccess) {
            f_.DevicePrimaryCtxRelease(ordinal);
        }
    }

    bool PushContext(void* context) override {
        Handle current = nullptr;
        Check(f_.CtxGetCurrent(&current), "cuCtxGetCurrent");
        if (current == context) {
            return false;
        }
        Check(f_.CtxPushCurrent(context), "cuCtxPushCurrent");
        return true;
    }

    void PopContext() noexcept override {
        Handle popped = nullptr;
        f_.CtxPopCurrent(&popped);
    }

    void* AllocateDevice(size_t bytes) override {
        Address memory = 0;
        Result const result = f_.MemAlloc(&memory, bytes);
        if (result == kOutOfMemory) {
            size_t free = 0;
            size_t total = 0;
            f_.MemGetInfo(&free, &total);
            throw CudaFault("EF767",
                            Text("the GPU's memory has run out: ", bytes, " bytes are needed, ", free, " of ", total,
                                 " are free; load with fewer contexts, or build the engine for a smaller batch"));
        }
        Check(result, "cuMemAlloc");
        return reinterpret_cast<void*>(memory);
    }

    void FreeDevice(void* memory) noexcept override { f_.MemFree(AddressOf(memory)); }

    void* AllocateHost(size_t bytes) override {
        void* memory = nullptr;
        Check(f_.MemHostAlloc(&memory, bytes, kPortableAndMapped), "cuMemHostAlloc");
        return memory;
    }

    void FreeHost(void* memory) noexcept override { f_.MemFreeHost(memory); }

    void* DeviceAddress(void const* host) noexcept override {
        Address address = 0;
        // An error is the usual answer: the driver knows nothing of this memory.
        return f_.PointerGetAttribute(&address, kDevicePointer, AddressOf(host)) == kSuccess
                   ? reinterpret_cast<void*>(address)
                   : nullptr;
    }

    void CopyToDevice(void* device, void const* host, size_t bytes, void* stream) override {
        Check(f_.MemcpyHtoDAsync(AddressOf(device), host, bytes, stream), "cuMemcpyHtoDAsync");
    }

    void CopyToHost(void* host, void const* device, size_t bytes, void* stream) override {
        Check(f_.MemcpyDtoHAsync(host, AddressOf(device), bytes, stream), "cuMemcpyDtoHAsync");
    }

    void CopyOnDevice(void* to, void const* from, size_t bytes, void* stream) override {
        Check(f_.MemcpyDtoDAsync(AddressOf(to), AddressOf(from), bytes, stream), "cuMemcpyDtoDAsync");
    }

    void* CreateStream() override {
        Handle stream = nullptr;
        Check(f_.StreamCreate(&stream, kNonBlocking), "cuStreamCreate");
        return stream;
    }

    void DestroyStream(void* stream) noexcept override { f_.StreamDestroy(stream); }

    void Synchronize(void* stream) override { Check(f_.StreamSynchronize(stream), "cuStreamSynchronize"); }

    void* LoadModule(void const* image) override {
        Handle module = nullptr;
        Check(f_.ModuleLoadData(&module, image), "cuModuleLoadData");
        return module;
    }

    void UnloadModule(void* module) noexcept override { f_.ModuleUnload(module); }

    void* KernelOf(void* module, char const* name) override {
        Handle kernel = nullptr;
        Check(f_.ModuleGetFunction(&kernel, module, name), "cuModuleGetFunction");
        return kernel;
    }

    void LaunchKernel(void* kernel, uint32_t blocks, uint32_t threads, uint32_t shared_bytes, void* stream,
                      void const* parameter) override {
        // Only read.
        void* parameters[] = {const_cast<void*>(parameter)};
        Check(f_.LaunchKernel(kernel, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, parameters, nullptr),
              "cuLaunchKernel");
    }

    bool IsCapturing(void* stream) override {
        int32_t status = 0;
        Check(f_.StreamIsCapturing(stream, &status), "cuStreamIsCapturing");
        return status != 0;
    }

    void BeginCapture(void* stream) override {
        Check(f_.StreamBeginCapture(stream, kThreadLocal), "cuStreamBeginCapture");
    }

    void* EndCapture(void* stream) override {
        Handle graph = nullptr;
        Check(f_.StreamEndCapture(stream, &graph), "cuStreamEndCapture");
        Handle executable = nullptr;
        Result const result = f_.GraphInstantiateWithFlags(&executable, graph, 0);
        f_.GraphDestroy(graph);
        Check(result, "cuGraphInstantiateWithFlags");
        return executable;
    }

    void DestroyGraph(void* graph) noexcept override { f_.GraphExecDestroy(graph); }

    void Launch(void* graph, void* stream) override { Check(f_.GraphLaunch(graph, stream), "cuGraphLaunch"); }

    // Why there is no GPU to use; empty: there is one.
    std::string Initialize() {
        Result const result = f_.Init(0);
        int32_t count = 0;
        if (result == kNoDevice || (result == kSuccess && f_.DeviceGetCount(&count) == kSuccess && count == 0)) {
            return "the NVIDIA driver finds none (CUDA_VISIBLE_DEVICES may hide it; a container is started with --gpus "
                   "all)";
        }
        if (result == kSystemDriverMismatch) {
            return Text("the NVIDIA driver's library and its kernel module are of different versions (", Words(result),
                        "): restart the machine after an update of the driver");
        }
        return result == kSuccess ? "" : Text("the NVIDIA driver does not start (", Words(result), ")");
    }

private:
    std::string Words(Result result) const {
        char const* name = nullptr;
        char const* text = nullptr;
        if (f_.GetErrorName(result, &name) != kSuccess || f_.GetErrorString(result, &text) != kSuccess) {
            return Text("error ", result);
        }
        return Text(name, ": ", text);
    }

    void Check(Result result, char const* call) const {
        if (result != kSuccess) {
            throw CudaFault("EF768", Text(call, " failed: ", Words(result)));
        }
    }

    int32_t Ordinal(int32_t index) {
        int32_t const count = DeviceCount();
        if (index < 0 || index >= count) {
            throw CudaFault("EF768",
                            Text("there is no CUDA device ", index, ": this machine has ", count, ", numbered from 0"));
        }
        int32_t ordinal = 0;
        Check(f_.DeviceGet(&ordinal, index), "cuDeviceGet");
        return ordinal;
    }

    int32_t Attribute(int32_t device, int32_t attribute) {
        int32_t value = 0;
        Check(f_.DeviceGetAttribute(&value, attribute, device), "cuDeviceGetAttribute");
        return value;
    }

    Functions const f_;
};

// The functions by the names that cuda.h gives them: those whose arguments changed once have a number behind.
// `missing`: one that it does not have.
Functions FunctionsOf(DynamicLibrary const& library, std::string* missing) {
    auto const find = [&](auto& function, char const* name) {
        function = reinterpret_cast<std::decay_t<decltype(function)>>(library.Symbol(name));
        if (function == nullptr) {
            *missing = name;
        }
    };
    Functions f{};
    find(f.Init, "cuInit");
    find(f.DriverGetVersion, "cuDriverGetVersion");
    find(f.GetErrorName, "cuGetErrorName");
    find(f.GetErrorString, "cuGetErrorString");
    find(f.DeviceGetCount, "cuDeviceGetCount");
    find(f.DeviceGet, "cuDeviceGet");
    find(f.DeviceGetName, "cuDeviceGetName");
    find(f.DeviceGetAttribute, "cuDeviceGetAttribute");
    find(f.DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
    find(f.DevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2");
    find(f.CtxGetCurrent, "cuCtxGetCurrent");
    find(f.CtxGetDevice, "cuCtxGetDevice");
    find(f.CtxPushCurrent, "cuCtxPushCurrent_v2");
    find(f.CtxPopCurrent, "cuCtxPopCurrent_v2");
    find(f.MemAlloc, "cuMemAlloc_v2");
    find(f.MemFree, "cuMemFree_v2");
    find(f.MemGetInfo, "cuMemGetInfo_v2");
    find(f.MemHostAlloc, "cuMemHostAlloc");
    find(f.MemFreeHost, "cuMemFreeHost");
    find(f.PointerGetAttribute, "cuPointerGetAttribute");
    find(f.MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2");
    find(f.MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2");
    find(f.MemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2");
    find(f.ModuleLoadData, "cuModuleLoadData");
    find(f.ModuleUnload, "cuModuleUnload");
    find(f.ModuleGetFunction, "cuModuleGetFunction");
    find(f.LaunchKernel, "cuLaunchKernel");
    find(f.StreamCreate, "cuStreamCreate");
    find(f.StreamDestroy, "cuStreamDestroy_v2");
    find(f.StreamSynchronize, "cuStreamSynchronize");
    find(f.StreamIsCapturing, "cuStreamIsCapturing");
    find(f.StreamBeginCapture, "cuStreamBeginCapture_v2");
    find(f.StreamEndCapture, "cuStreamEndCapture");
    find(f.GraphInstantiateWithFlags, "cuGraphInstantiateWithFlags");
    find(f.GraphDestroy, "cuGraphDestroy");
    find(f.GraphExecDestroy, "cuGraphExecDestroy");
    find(f.GraphLaunch, "cuGraphLaunch");
    return f;
}

}  // namespace

std::shared_ptr<Cuda> OpenCuda(std::string* problem) {
    DynamicLibrary library = DynamicLibrary::Open(kLibrary, problem);
    if (!library) {
        *problem = Text("the NVIDIA driver is not installed (", *problem, "); nvidia-smi shows when it works");
        return nullptr;
    }
    std::string missing;
    auto cuda = std::make_shared<DriverCuda>(FunctionsOf(library, &missing));
    // Never closed: the driver does not survive it.
    library.Keep();
    *problem = !missing.empty() ? Text("the NVIDIA driver is too old, it has no ", missing, ": install a newer one")
                                : cuda->Initialize();
    return problem->empty() ? cuda : nullptr;
}

}  // namespace edgeformer::tensorrt
