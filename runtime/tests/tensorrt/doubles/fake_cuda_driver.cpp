// A stand-in for the driver's library, libcuda.so.1: one device whose memory is the host's, and streams that do at once
// what they are given. Programs that cannot reach into it choose the CUDA version and the compute capability by
// FAKE_DRIVER_VERSION (12040) and FAKE_DRIVER_SM (87). Compiled with OLD_DRIVER it lacks what came with CUDA 11.4.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "tensorrt/doubles/fake_cuda_driver.h"

namespace {

int32_t FromEnvironment(char const* name, int32_t otherwise) {
    char const* const value = std::getenv(name);
    return value != nullptr ? std::atoi(value) : otherwise;
}

fake::Driver Configured() {
    fake::Driver driver;
    driver.version = FromEnvironment("FAKE_DRIVER_VERSION", driver.version);
    driver.sm = FromEnvironment("FAKE_DRIVER_SM", driver.sm);
    return driver;
}

fake::Driver driver = Configured();
thread_local void* current = nullptr;
thread_local void* beneath = nullptr;

// What was allocated, by address; leaked, so that it outlives all.
std::map<unsigned long long, size_t>& Memories() {
    static auto& memories = *new std::map<unsigned long long, size_t>;
    return memories;
}

void* Allocated(size_t bytes) {
    void* const memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    Memories()[reinterpret_cast<unsigned long long>(memory)] = bytes;
    ++driver.allocations;
    return memory;
}

void Freed(void* memory) {
    Memories().erase(reinterpret_cast<unsigned long long>(memory));
    --driver.allocations;
    std::free(memory);
}

int32_t Done(int32_t result = 0) {
    ++driver.calls;
    return driver.result != 0 ? driver.result : result;
}

}  // namespace

extern "C" {

fake::Driver* fakeCudaDriver() { return &driver; }

int32_t cuInit(uint32_t) { return driver.init_result; }
int32_t cuDriverGetVersion(int32_t* version) { return *version = driver.version, Done(); }
int32_t cuGetErrorName(int32_t result, char const** name) {
    *name = result == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_LAUNCH_FAILED";
    return 0;
}
int32_t cuGetErrorString(int32_t, char const** text) { return *text = "what CUDA says", 0; }
int32_t cuDeviceGetCount(int32_t* count) { return *count = driver.devices, Done(); }
int32_t cuDeviceGet(int32_t* device, int32_t index) { return *device = index + 10, Done(); }
int32_t cuDeviceGetName(char* name, int32_t bytes, int32_t) { return std::strncpy(name, "Fake GPU", bytes), Done(); }
int32_t cuDeviceTotalMem_v2(size_t* bytes, int32_t) { return *bytes = 1000, Done(); }
int32_t cuDeviceGetAttribute(int32_t* value, int32_t attribute, int32_t) {
    *value = attribute == 75                      ? driver.sm / 10
             : attribute == 76                    ? driver.sm % 10
             : attribute == 18 || attribute == 19 ? driver.integrated
                                                  : -1;
    return Done();
}
int32_t cuDevicePrimaryCtxRetain(void** context, int32_t) {
    ++driver.retained;
    return *context = &driver.primary, Done();
}
int32_t cuDevicePrimaryCtxRelease_v2(int32_t) { return --driver.retained, Done(); }
int32_t cuCtxGetCurrent(void** context) { return *context = current, Done(); }
int32_t cuCtxGetDevice(int32_t* device) { return *device = 10, Done(); }
int32_t cuCtxPushCurrent_v2(void* context) { return beneath = current, current = context, Done(); }
int32_t cuCtxPopCurrent_v2(void** context) { return *context = current, current = beneath, beneath = nullptr, Done(); }
int32_t cuMemAlloc_v2(unsigned long long* memory, size_t bytes) {
    if (driver.alloc_result != 0) {
        return driver.alloc_result;
    }
    *memory = reinterpret_cast<unsigned long long>(Allocated(bytes));
    return Done();
}
int32_t cuMemFree_v2(unsigned long long memory) { return Freed(reinterpret_cast<void*>(memory)), Done(); }
int32_t cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = 100, *total = 1000, Done(); }
int32_t cuMemHostAlloc(void** memory, size_t bytes, uint32_t flags) {
    if (driver.result != 0) {
        return driver.result;
    }
    driver.host_flags = flags;
    return *memory = Allocated(bytes), Done();
}
int32_t cuMemFreeHost(void* memory) { return Freed(memory), Done(); }
int32_t cuPointerGetAttribute(void* data, int32_t attribute, unsigned long long memory) {
    auto after = Memories().upper_bound(memory);
    if (attribute != 3 || after == Memories().begin() || memory - (--after)->first >= after->second) {
        return 1;
    }
    *static_cast<unsigned long long*>(data) = memory;
    return 0;
}
int32_t cuMemcpyHtoDAsync_v2(unsigned long long to, void const* from, size_t bytes, void*) {
    return std::memcpy(reinterpret_cast<void*>(to), from, bytes), Done();
}
int32_t cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void*) {
    return std::memcpy(to, reinterpret_cast<void*>(from), bytes), Done();
}
int32_t cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, void*) {
    return std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes), Done();
}
int32_t cuModuleLoadData(void** module, void const* image) {
    if (driver.module_result != 0 || image == nullptr) {
        return driver.module_result != 0 ? driver.module_result : 1;
    }
    ++driver.modules;
    return *module = &driver.module, Done();
}
int32_t cuModuleUnload(void* module) { return --driver.modules, Done(module == &driver.module ? 0 : 1); }
int32_t cuModuleGetFunction(void** function, void* module, char const* name) {
    static auto& names = *new std::set<std::string>;
    *function = const_cast<std::string*>(&*names.insert(name).first);
    return Done(module == &driver.module ? 0 : 1);
}
int32_t cuLaunchKernel(void* function, uint32_t blocks, uint32_t y, uint32_t z, uint32_t threads, uint32_t, uint32_t,
                       uint32_t shared_bytes, void*, void** parameters, void** extra) {
    if (y != 1 || z != 1 || extra != nullptr) {
        return 1;
    }
    ++driver.kernels;
    if (driver.launch != nullptr) {
        driver.launch(static_cast<std::string*>(function)->c_str(), blocks, threads, shared_bytes, parameters[0]);
    }
    return Done();
}
int32_t cuStreamCreate(void** stream, uint32_t flags) {
    driver.stream_flags = flags;
    return *stream = &driver.stream, Done();
}
int32_t cuStreamDestroy_v2(void*) { return Done(); }
int32_t cuStreamSynchronize(void*) { return Done(); }
int32_t cuStreamIsCapturing(void*, int32_t* status) { return *status = driver.capturing, Done(); }
int32_t cuStreamBeginCapture_v2(void*, int32_t mode) { return driver.capturing = 1, driver.mode = mode, Done(); }
int32_t cuStreamEndCapture(void*, void** graph) { return driver.capturing = 0, *graph = &driver.graph, Done(); }
#ifndef OLD_DRIVER
int32_t cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
    *executable = graph == &driver.graph && flags == 0 ? &driver.executable : nullptr;
    return Done(driver.instantiate_result);
}
#endif
int32_t cuGraphDestroy(void*) { return ++driver.graphs_destroyed, Done(); }
int32_t cuGraphExecDestroy(void*) { return ++driver.executables_destroyed, Done(); }
int32_t cuGraphLaunch(void* executable, void*) {
    return ++driver.launches, Done(executable == &driver.executable ? 0 : 1);
}
}
