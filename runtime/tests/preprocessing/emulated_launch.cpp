#include "emulated_launch.h"

#include "emulated_kernel.h"
#include "preprocessing/launch.h"

using edgeformer::preprocessing::Arguments;

extern "C" {
void edgeformerPreprocess32(Arguments a);
void edgeformerPreprocess16(Arguments a);
void edgeformerPreprocess8(Arguments a);
}

namespace {

using Kernel = void (*)(Arguments);

Kernel KernelOf(std::string const& name) {
    return name == "edgeformerPreprocess32"   ? edgeformerPreprocess32
           : name == "edgeformerPreprocess16" ? edgeformerPreprocess16
           : name == "edgeformerPreprocess8"  ? edgeformerPreprocess8
                                              : nullptr;
}

cudaError_t LaunchKernel(std::string const& name, uint32_t blocks, uint32_t threads, size_t shared_bytes,
                         Arguments const& arguments, cudaStream_t stream) {
    Kernel const kernel = KernelOf(name);
    if (kernel == nullptr) {
        return cudaErrorInvalidValue;
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, arguments);
}

}  // namespace

bool RunEmulatedKernel(std::string const& name, uint32_t blocks, uint32_t threads, size_t shared_bytes,
                       void const* arguments) {
    return LaunchKernel(name, blocks, threads, shared_bytes, *static_cast<Arguments const*>(arguments), nullptr) ==
           cudaSuccess;
}

namespace edgeformer::preprocessing {

cudaError_t Launch(Plan const& plan, Pixels const& pixels, void const* tables, void* output, cudaStream_t stream) {
    Arguments const arguments = plan.ArgumentsFor(pixels, tables, output);
    LaunchPlan const launch = LaunchPlanOf(arguments);
    return LaunchKernel(launch.kernel, launch.blocks, kThreads, kSharedBytes, arguments, stream);
}

}  // namespace edgeformer::preprocessing
