// GPUs and launches: what CUDA grants and refuses.
#include <gtest/gtest.h>

#include "emulation/emulator_fixture.h"

namespace edgeformer {
namespace {

TEST_F(Emulator, LaunchesThatCudaRefusesAreRefused) {
    int runs = 0;
    auto count = [&] { ++runs; };
    EXPECT_EQ(Launch(0, 32, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 0, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 1025, 0, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(emulation::Run({{1, 65536, 1}, {1, 1, 1}}, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(emulation::Run({{1, 1, 1}, {1, 1, 65}}, count), cudaErrorInvalidConfiguration);
    EXPECT_EQ(Launch(1, 32, 48 * 1024 + 1, count), cudaErrorInvalidValue);
    EXPECT_EQ(emulation::LastLaunch().status, cudaErrorInvalidValue);
    EXPECT_EQ(emulation::LastLaunch().shape.shared_bytes, 48U * 1024 + 1);
    emulation::FailLaunch(1, cudaErrorLaunchFailure);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaSuccess);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaErrorLaunchFailure);
    EXPECT_EQ(Launch(1, 1, 0, count), cudaSuccess);
    EXPECT_EQ(runs, 2);
}

void Nothing(int* /*runs*/) {}
void Count(int* runs) { ++*runs; }

cudaError_t LaunchKernel(void (*kernel)(int*), size_t shared_bytes, int* runs, cudaStream_t stream = nullptr,
                         bool programmatic = false) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = programmatic ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, runs);
}

TEST_F(Emulator, MuchSharedMemoryMustBeAskedForByKernelAndDevice) {
    int runs = 0;
    emulation::SetDevice({86, 99 * 1024, 1});
    EXPECT_EQ(cudaFuncSetAttribute(Count, cudaFuncAttributeMaxDynamicSharedMemorySize, 99 * 1024 + 1),
              cudaErrorInvalidValue);
    EXPECT_EQ(LaunchKernel(Count, 64 * 1024, &runs), cudaErrorInvalidValue);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_EQ(cudaFuncSetAttribute(Count, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024), cudaSuccess);
    EXPECT_EQ(LaunchKernel(Count, 64 * 1024, &runs), cudaSuccess);
    EXPECT_EQ(LaunchKernel(Count, 64 * 1024 + 1, &runs), cudaErrorInvalidValue);
    EXPECT_EQ(LaunchKernel(Nothing, 64 * 1024, &runs), cudaErrorInvalidValue);
    emulation::SetDevice({90, 227 * 1024, 1});
    EXPECT_EQ(LaunchKernel(Count, 64 * 1024, &runs), cudaErrorInvalidValue);
    EXPECT_EQ(runs, 1);
}

TEST_F(Emulator, DevicesHaveOrdinalsAndAttributes) {
    auto ordinal = [] {
        int device = -1;
        EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
        return device;
    };
    auto attribute = [](cudaDeviceAttr which, int device) {
        int value = -1;
        EXPECT_EQ(cudaDeviceGetAttribute(&value, which, device), cudaSuccess);
        return value;
    };
    emulation::SetDevice({75, 64 * 1024, 40});
    int const turing = ordinal();
    emulation::SetDevice({120, 99 * 1024, 170});
    int const blackwell = ordinal();
    EXPECT_NE(turing, blackwell);
    emulation::SetDevice({75, 64 * 1024, 40});
    EXPECT_EQ(ordinal(), turing);
    EXPECT_EQ(attribute(cudaDevAttrComputeCapabilityMajor, blackwell), 12);
    EXPECT_EQ(attribute(cudaDevAttrComputeCapabilityMinor, turing), 5);
    EXPECT_EQ(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, turing), 64 * 1024);
    EXPECT_EQ(attribute(cudaDevAttrMultiProcessorCount, blackwell), 170);
    EXPECT_EQ(cudaSetDevice(blackwell), cudaSuccess);
    EXPECT_EQ(emulation::CurrentDevice().compute_capability, 120);
    int count = 0;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    EXPECT_EQ(cudaSetDevice(count), cudaErrorInvalidDevice);
    emulation::FailCall("cudaGetDevice", cudaErrorNoDevice);
    EXPECT_EQ(cudaGetDevice(&count), cudaErrorNoDevice);
    EXPECT_EQ(cudaGetDevice(&count), cudaSuccess);
}

TEST_F(Emulator, AStreamInErrorTakesNoLaunch) {
    int runs = 0;
    CUstream_st stream{cudaErrorIllegalAddress};
    EXPECT_EQ(LaunchKernel(Count, 0, &runs, &stream), cudaErrorIllegalAddress);
    EXPECT_EQ(cudaPeekAtLastError(), cudaErrorIllegalAddress);
    stream.error = cudaSuccess;
    EXPECT_EQ(LaunchKernel(Count, 0, &runs, &stream), cudaSuccess);
    EXPECT_EQ(runs, 1);
}

TEST_F(Emulator, ProgrammaticLaunchesNeedComputeCapability90) {
    int runs = 0;
    emulation::SetDevice({89, 99 * 1024, 1});
    EXPECT_EQ(LaunchKernel(Count, 0, &runs, nullptr, true), cudaErrorNotSupported);
    emulation::SetDevice({90, 227 * 1024, 1});
    EXPECT_EQ(LaunchKernel(Nothing, 0, &runs), cudaSuccess);
    EXPECT_EQ(LaunchKernel(Count, 0, &runs, nullptr, true), cudaSuccess);
    EXPECT_TRUE(emulation::LastLaunch().shape.programmatic);
    EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace edgeformer
