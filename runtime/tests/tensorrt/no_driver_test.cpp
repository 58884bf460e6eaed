// Machines without a driver, or with one that is too old. Each in a program run of its own: a library that the process
// has loaded stays.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include "tensorrt/expect_fault.h"
#include "tensorrt/tensorrt.h"

namespace edgeformer {
namespace {

bool HasDriver() { return dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) != nullptr; }

TEST(NoDriver, IsAProblemOfTheGpuAndSaysWhatToDo) {
    if (HasDriver()) {
        GTEST_SKIP() << "this machine has a driver";
    }
    Machine const machine = FindMachine({"tensorrt", "", ""}, 0);
    ExpectParts(machine.gpu_problem, {"driver is not installed", "libcuda.so.1", "nvidia-smi"});
    EXPECT_EQ(machine.driver_cuda, 0);
    EXPECT_EQ(machine.sm, 0);
}

TEST(OldDriver, IsAProblemOfTheGpuAndNamesWhatItLacks) {
    if (HasDriver()) {
        GTEST_SKIP() << "this process has another driver";
    }
    ASSERT_NE(dlopen(FAKE_LIBRARIES "/old/libcuda.so.1", RTLD_NOW | RTLD_LOCAL), nullptr) << dlerror();
    ExpectParts(FindMachine({"tensorrt", "", ""}, 0).gpu_problem, {"too old", "cuGraphInstantiateWithFlags", "newer"});
}

}  // namespace
}  // namespace edgeformer
