#include "machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "expect_contains.h"
#include "fault_of.h"
#include "temporary_bundle.h"

using edgeformer::Bundle;
using edgeformer::CheckMachine;
using edgeformer::Machine;
using edgeformer::PluginFile;
using edgeformer::ReadBundle;

namespace {

Machine Fitting() {
    Machine machine;
    machine.driver_cuda = 13000;
    machine.sm = 89;
    machine.library = "/usr/lib/libtensorrt_rtx.so.1";
    machine.flavour = "tensorrt_rtx";
    machine.tensorrt_version = "1.7.1";
    return machine;
}

std::string FaultWith(Machine const& machine) {
    TemporaryBundle const made;
    Bundle const bundle = ReadBundle(made.folder());
    return FaultOf([&] { CheckMachine(bundle, ReadPlugin(bundle), machine); });
}

}  // namespace

TEST(CheckMachine, TakesTheMachineThatTheEngineIsFor) {
    TemporaryBundle const made;
    Bundle const bundle = ReadBundle(made.folder());
    PluginFile const plugin = ReadPlugin(bundle);
    EXPECT_EQ(plugin.path, made.PathOf("libedgeformer_plugins.so"));
    EXPECT_EQ(plugin.cuda, 13000);
    CheckMachine(bundle, plugin, Fitting());
    CheckPluginFile(bundle, plugin);
    CheckMachine(Fitting());
}

TEST(CheckMachine, RefusesAMachineWithoutAGpu) {
    Machine machine = Fitting();
    machine.gpu_problem = "libcuda.so.1 is missing";
    EXPECT_CONTAINS(FaultWith(machine), "EF650: no CUDA GPU: libcuda.so.1 is missing");
    EXPECT_CONTAINS(FaultOf([&] { CheckMachine(machine); }), "EF650: ");
}

TEST(CheckMachine, RefusesAnOldDriver) {
    Machine machine = Fitting();
    machine.driver_cuda = 12060;
    EXPECT_CONTAINS(FaultWith(machine), "EF758: the NVIDIA driver runs CUDA 12.6 at most");
    EXPECT_CONTAINS(FaultWith(machine), "needs 13.0");
}

TEST(CheckMachine, RefusesAnotherGpu) {
    Machine machine = Fitting();
    machine.sm = 86;
    EXPECT_CONTAINS(FaultWith(machine), "EF751: ");
    EXPECT_CONTAINS(FaultWith(machine), "compute capability 8.9 (rtx-40), and this GPU has 8.6");
}

TEST(CheckMachine, TakesEveryGpuOfAnEngineForSeveral) {
    TemporaryBundle made;
    made.engine()["sm"] = 80;
    made.engine()["sms"] = {80, 89, 120};
    made.WriteManifest();
    Bundle const bundle = ReadBundle(made.folder());
    Machine machine = Fitting();
    for (int const sm : {80, 89, 120}) {
        machine.sm = sm;
        CheckMachine(bundle, ReadPlugin(bundle), machine);
    }
    machine.sm = 86;
    EXPECT_CONTAINS(FaultOf([&] { CheckMachine(bundle, ReadPlugin(bundle), machine); }),
                    "compute capability 8.0, 8.9, 12.0 (rtx-40), and this GPU has 8.6");
}

TEST(CheckMachine, RefusesAMachineWithoutTensorRt) {
    Machine machine = Fitting();
    machine.library_problem = "no library was found";
    EXPECT_CONTAINS(FaultWith(machine), "EF605: the engine needs TensorRT-RTX 1.7.1: no library was found");
    machine.others = " (also found: TensorRT 10.3.0, /opt/libnvinfer.so.10)";
    EXPECT_CONTAINS(FaultWith(machine), "no library was found (also found: TensorRT 10.3.0, ");
    EXPECT_CONTAINS(FaultOf([&] { CheckMachine(machine); }), "EF605: running an engine needs TensorRT");
}

TEST(CheckMachine, RefusesTheOtherFlavour) {
    Machine machine = Fitting();
    machine.flavour = "tensorrt";
    EXPECT_CONTAINS(FaultWith(machine), "EF757: ");
    EXPECT_CONTAINS(FaultWith(machine), "the engine is one of TensorRT-RTX, and");
}

TEST(CheckMachine, RefusesAnotherRelease) {
    Machine machine = Fitting();
    machine.tensorrt_version = "1.8.0";
    EXPECT_CONTAINS(FaultWith(machine), "EF753: ");
    EXPECT_CONTAINS(FaultWith(machine), "built with TensorRT-RTX 1.7.1.116, and");
    EXPECT_CONTAINS(FaultWith(machine), "pip install tensorrt-rtx==1.7.1");

    TemporaryBundle made;
    made.engine()["flavour"] = "tensorrt";
    made.engine()["tensorrt_version"] = "10.3.0";
    made.WriteManifest();
    Bundle const bundle = ReadBundle(made.folder());
    machine.flavour = "tensorrt";
    machine.tensorrt_version = "10.16.1";
    machine.others = " (also found: TensorRT 11.4.0, /opt/libnvinfer.so.11)";
    std::string const fault = FaultOf([&] { CheckMachine(bundle, {}, machine); });
    EXPECT_CONTAINS(fault, "EF752: ");
    EXPECT_CONTAINS(fault, "is 10.16.1 (also found: TensorRT 11.4.0, /opt/libnvinfer.so.11): engines run on");
}

TEST(ReadPlugin, IsNotNeededWhereItIsEmbeddedOrThereIsNone) {
    TemporaryBundle made;
    made.engine()["plugin_embedded"] = true;
    made.WriteManifest();
    EXPECT_EQ(ReadPlugin(ReadBundle(made.folder())).path, "");
    made.engine()["plugin_embedded"] = false;
    made.engine()["plugin_version"] = nullptr;
    made.WriteManifest();
    EXPECT_EQ(ReadPlugin(ReadBundle(made.folder())).path, "");
}

TEST(ReadPlugin, RefusesAMissingLibraryOneOfAnotherVersionAndAnotherFile) {
    TemporaryBundle made;
    Bundle bundle = ReadBundle(made.folder());
    made.Write("libedgeformer_plugins.so", "a librarx");
    EXPECT_CONTAINS(FaultOf([&] { CheckPluginFile(bundle, ReadPlugin(bundle)); }), "EF756: ");
    std::filesystem::remove(made.PathOf("libedgeformer_plugins.so"));
    EXPECT_CONTAINS(FaultOf([&] { ReadPlugin(bundle); }), "EF754: ");
    made.Put("libedgeformer_plugins.so", "a library");
    made.Put("libedgeformer_plugins.json", R"({"version": "0.0.9", "cuda": "13.0"})");
    made.WriteManifest();
    bundle = ReadBundle(made.folder());
    EXPECT_CONTAINS(FaultOf([&] { ReadPlugin(bundle); }), "EF755: ");
    EXPECT_CONTAINS(FaultOf([&] { ReadPlugin(bundle); }), "of edgeformer 0.0.9");
    made.Put("libedgeformer_plugins.json", "[]");
    made.WriteManifest();
    bundle = ReadBundle(made.folder());
    EXPECT_CONTAINS(FaultOf([&] { ReadPlugin(bundle); }), "of edgeformer an unknown version");
    // A library and its metadata that came from another build: the manifest knows nothing of it.
    made.Write("libedgeformer_plugins.json", R"({"version": "0.0.9", "cuda": "13.0"})");
    EXPECT_CONTAINS(FaultOf([&] { ReadPlugin(bundle); }), "of edgeformer 0.0.9");
    made.Write("libedgeformer_plugins.json", R"({"version": "0.1.0", "cuda": "12.0"})");
    EXPECT_CONTAINS(FaultOf([&] { ReadPlugin(bundle); }), "EF704: ");
    made.Write("libedgeformer_plugins.json", std::string(100000, '['));
    EXPECT_CONTAINS(FaultOf([&] { ReadPlugin(bundle); }), "EF755: ");
}
