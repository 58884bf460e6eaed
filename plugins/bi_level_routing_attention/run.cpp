#include "bi_level_routing_attention/run.h"

#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "bi_level_routing_attention/problem.h"
#include "common/text.h"

namespace edgeformer::bi_level_routing_attention {

std::string WhyDriverTooOld() {
    constexpr int kMajor = 1000;  // CUDA 12.4 is 12040
    auto const text = [](int version) { return Text(version / kMajor, ".", version % kMajor / 10); };
    int driver = 0;
    int runtime = 0;
    // The driver's version is 0 where there is none, which is another matter.
    if (cudaDriverGetVersion(&driver) != cudaSuccess || cudaRuntimeGetVersion(&runtime) != cudaSuccess || driver == 0 ||
        driver / kMajor >= runtime / kMajor) {
        return "";
    }
    return Text("the plugin library was built with CUDA ", text(runtime), " and the driver supports CUDA up to ",
                text(driver), ": install a newer driver, or build the library with CUDA ", driver / kMajor);
}

namespace {

void Require(cudaError_t status, char const* action) {
    if (status != cudaSuccess) {
        // The host program's next check of its own launches should not find our error.
        cudaGetLastError();
        std::string const driver = WhyDriverTooOld();
        throw CudaError(Text(action, " failed: ", cudaGetErrorName(status), ": ", cudaGetErrorString(status),
                             driver.empty() ? "" : "; ", driver));
    }
}

int32_t Query(cudaDeviceAttr attribute, int ordinal) {
    int value = 0;
    Require(cudaDeviceGetAttribute(&value, attribute, ordinal), "querying the CUDA device");
    return value;
}

void RequireBuffer(void const* pointer, char const* name) {
    if (pointer == nullptr) {
        throw std::invalid_argument(Text("got a null pointer for ", name));
    }
    if (reinterpret_cast<uintptr_t>(pointer) % kBufferAlignment != 0) {
        throw std::invalid_argument(
            Text("got the address ", pointer, " for ", name, "; it must be a multiple of ", kBufferAlignment));
    }
}

Device QueryDevice(int ordinal) {
    Device device;
    device.compute_capability =
        10 * Query(cudaDevAttrComputeCapabilityMajor, ordinal) + Query(cudaDevAttrComputeCapabilityMinor, ordinal);
    device.max_shared_bytes = Query(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
    device.multiprocessors = Query(cudaDevAttrMultiProcessorCount, ordinal);
    return device;
}

}  // namespace

Device CurrentDevice() {
    static std::mutex mutex;
    static std::map<int, Device> devices;
    int ordinal = 0;
    Require(cudaGetDevice(&ordinal), "looking for a CUDA device");
    std::lock_guard<std::mutex> const lock(mutex);
    auto found = devices.find(ordinal);
    if (found == devices.end()) {
        found = devices.emplace(ordinal, QueryDevice(ordinal)).first;
    }
    return found->second;
}

void RequireBuffers(Params const& params, void const* workspace) {
    RequireBuffer(params.qkv, "qkv");
    RequireBuffer(params.output, "the output");
    if (params.lepe_kernel != 0) {
        RequireBuffer(params.lepe_weight, "lepe_weight");
        RequireBuffer(params.lepe_bias, "lepe_bias");
    }
    RequireBuffer(workspace, "the workspace");
}

void Run(Params const& params, AttentionPlan const& plan, cudaStream_t stream) {
    Require(LaunchRegionMean(params, stream), "launching the region mean kernel");
    Require(LaunchRouting(params, stream), "launching the routing kernel");
    Require(LaunchAttention(params, plan, stream), "launching the attention kernel");
}

}  // namespace edgeformer::bi_level_routing_attention
