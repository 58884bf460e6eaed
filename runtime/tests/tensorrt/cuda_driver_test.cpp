// The driver API, against a stand-in for libcuda.so.1 that this program has loaded, so that it is the one found.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include "tensorrt/doubles/fake_cuda_driver.h"
#include "tensorrt/expect_fault.h"
#include "tensorrt/loading.h"

namespace edgeformer::tensorrt {
namespace {

class CudaDriver : public testing::Test {
protected:
    CudaDriver() {
        void* const library = dlopen(FAKE_LIBRARIES "/libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        EXPECT_NE(library, nullptr) << dlerror();
        driver = reinterpret_cast<fake::Driver* (*)()>(dlsym(library, "fakeCudaDriver"))();
        *driver = {};
    }
    ~CudaDriver() override { EXPECT_EQ(driver->allocations, 0); }

    std::shared_ptr<Cuda> Open() {
        std::string problem;
        std::shared_ptr<Cuda> cuda = OpenCuda(&problem);
        EXPECT_EQ(problem, "");
        return cuda;
    }

    std::string Problem() {
        std::string problem;
        EXPECT_EQ(OpenCuda(&problem), nullptr);
        return problem;
    }

    fake::Driver* driver;
};

TEST_F(CudaDriver, TheDeviceIsDescribed) {
    Device const device = Open()->DeviceAt(0);
    EXPECT_EQ(device.name, "Fake GPU");
    EXPECT_EQ(device.sm, 87);
    EXPECT_FALSE(device.integrated);
    driver->integrated = 1;
    EXPECT_TRUE(Open()->DeviceAt(0).integrated);
    EXPECT_EQ(Open()->DriverVersion(), 12040);
}

TEST_F(CudaDriver, WithoutADeviceThereIsNone) {
    driver->init_result = 100;
    ExpectParts(Problem(), {"finds none", "CUDA_VISIBLE_DEVICES"});
    driver->init_result = 0;
    driver->devices = 0;
    ExpectParts(Problem(), {"finds none"});
}

TEST_F(CudaDriver, ADriverThatDoesNotStartSaysWhy) {
    driver->init_result = 803;
    ExpectParts(Problem(), {"different versions", "restart"});
    driver->init_result = 999;
    ExpectParts(Problem(), {"does not start", "what CUDA says"});
}

TEST_F(CudaDriver, ADeviceThatIsNotThereIsNamed) {
    auto const cuda = Open();
    for (int const index : {-1, 1, 7}) {
        EXPECT_FAULT(cuda->DeviceAt(index), "no CUDA device", std::to_string(index), "has 1");
    }
}

TEST_F(CudaDriver, WhatTheMachineHasIsReportedWithoutThrowing) {
    Machine machine = edgeformer::FindMachine({"tensorrt", "", "/nowhere/libnvinfer.so.10"}, 0);
    EXPECT_EQ(machine.gpu_problem, "");
    EXPECT_EQ(machine.driver_cuda, 12040);
    EXPECT_EQ(machine.sm, 87);
    ExpectParts(machine.library_problem, {"/nowhere/libnvinfer.so.10"});
    machine = edgeformer::FindMachine({"tensorrt_rtx", "", ""}, 3);
    ExpectParts(machine.gpu_problem, {"no CUDA device 3"});
    driver->init_result = 100;
    ExpectParts(edgeformer::FindMachine({}, 0).gpu_problem, {"finds none"});
}

TEST_F(CudaDriver, ACallThatFailsIsNamedWithCudasWords) {
    auto const cuda = Open();
    driver->result = 719;
    EXPECT_FAULT(cuda->Synchronize(nullptr), "EF768", "cuStreamSynchronize", "CUDA_ERROR_LAUNCH_FAILED",
                 "what CUDA says");
    EXPECT_FAULT(cuda->AllocateHost(1), "EF768", "cuMemHostAlloc");
}

TEST_F(CudaDriver, OutOfMemoryGivesTheFigures) {
    auto const cuda = Open();
    driver->alloc_result = 2;
    EXPECT_FAULT(cuda->AllocateDevice(12345), "EF767", "12345", "100 of 1000");
}

TEST_F(CudaDriver, ThePrimaryContextIsUsedWhereTheThreadHasNone) {
    auto const cuda = Open();
    void* const context = cuda->RetainContext(0);
    EXPECT_EQ(context, &driver->primary);
    EXPECT_TRUE(cuda->PushContext(context));
    EXPECT_FALSE(cuda->PushContext(context));
    cuda->PopContext();
    EXPECT_TRUE(cuda->PushContext(context));
    cuda->PopContext();
    cuda->ReleaseContext(0, context);
    EXPECT_EQ(driver->retained, 0);
}

TEST_F(CudaDriver, TheThreadsOwnContextIsUsedWhereItIsOfTheDevice) {
    auto const cuda = Open();
    char own = 0;
    cuda->PushContext(&own);
    void* const context = cuda->RetainContext(0);
    EXPECT_EQ(context, &own);
    cuda->ReleaseContext(0, context);
    cuda->PopContext();
    EXPECT_EQ(driver->retained, 0);
}

TEST_F(CudaDriver, MemoryIsCopiedAndHostMemoryIsMapped) {
    auto const cuda = Open();
    char const text[] = "bytes";
    char back[sizeof(text)] = {};
    void* const device = cuda->AllocateDevice(sizeof(text));
    cuda->CopyToDevice(device, text, sizeof(text), nullptr);
    void* const other = cuda->AllocateDevice(sizeof(text));
    cuda->CopyOnDevice(other, device, sizeof(text), nullptr);
    cuda->CopyToHost(back, other, sizeof(text), nullptr);
    cuda->FreeDevice(other);
    EXPECT_STREQ(back, text);
    cuda->FreeDevice(device);
    void* const host = cuda->AllocateHost(100);
    EXPECT_EQ(driver->host_flags, 3U);  // portable, mapped
    EXPECT_EQ(cuda->DeviceAddress(host), host);
    EXPECT_EQ(cuda->DeviceAddress(text), nullptr);
    cuda->FreeHost(host);
}

TEST_F(CudaDriver, AKernelIsLaunchedWithItsParameter) {
    auto const cuda = Open();
    static std::string launched;
    driver->launch = [](char const* kernel, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                        void const* parameter) {
        launched = Text(kernel, " ", blocks, " ", threads, " ", shared_bytes, " ", *static_cast<int const*>(parameter));
    };
    void* const module = cuda->LoadModule("a fat binary");
    void* const kernel = cuda->KernelOf(module, "f");
    int const parameter = 7;
    cuda->LaunchKernel(kernel, 3, 128, 1000, &driver->stream, &parameter);
    EXPECT_EQ(launched, "f 3 128 1000 7");
    cuda->UnloadModule(module);
    EXPECT_EQ(driver->modules, 0);
    driver->module_result = 209;
    EXPECT_FAULT(cuda->LoadModule("a fat binary"), "EF768", "cuModuleLoadData");
}

TEST_F(CudaDriver, StreamsDoNotWaitForTheDefaultStream) {
    auto const cuda = Open();
    void* const stream = cuda->CreateStream();
    EXPECT_EQ(driver->stream_flags, 1U);
    cuda->Synchronize(stream);
    cuda->DestroyStream(stream);
}

TEST_F(CudaDriver, AGraphIsCapturedByThisThreadAlone) {
    auto const cuda = Open();
    EXPECT_FALSE(cuda->IsCapturing(&driver->stream));
    cuda->BeginCapture(&driver->stream);
    EXPECT_EQ(driver->mode, 1);  // thread-local
    EXPECT_TRUE(cuda->IsCapturing(&driver->stream));
    void* const graph = cuda->EndCapture(&driver->stream);
    EXPECT_EQ(graph, &driver->executable);
    EXPECT_EQ(driver->graphs_destroyed, 1);
    cuda->Launch(graph, &driver->stream);
    EXPECT_EQ(driver->launches, 1);
    cuda->DestroyGraph(graph);
    EXPECT_EQ(driver->executables_destroyed, 1);
}

TEST_F(CudaDriver, AGraphThatCannotBeInstantiatedIsFreed) {
    auto const cuda = Open();
    cuda->BeginCapture(&driver->stream);
    driver->instantiate_result = 801;
    EXPECT_FAULT(cuda->EndCapture(&driver->stream), "EF768", "cuGraphInstantiateWithFlags");
    EXPECT_EQ(driver->graphs_destroyed, 1);
}

}  // namespace
}  // namespace edgeformer::tensorrt
