// What this machine has for an engine, and whether the engine goes with it. Everything here is decided before the
// engine is deserialized: an engine is code.
#pragma once

#include <string>

#include "bundle.h"

namespace edgeformer {

// The TensorRT that an engine needs.
struct TensorRtRequest {
    std::string flavour;  // "tensorrt", "tensorrt_rtx"; empty: whichever `library` is
    std::string version;  // that built the engine, "10.3.0.26"; empty: nobody knows
    std::string library;  // path that the caller named; empty: it is looked for (edgeformer.h)
};

// The GPU, the driver and the TensorRT library that would run an engine.
struct Machine {
    std::string gpu_problem;       // why there is no GPU to use; empty: there is one
    int driver_cuda = 0;           // newest CUDA that the driver runs: 12060 is 12.6
    int sm = 0;                    // compute capability times ten
    std::string library_problem;   // why no TensorRT library could be opened; empty: one was
    std::string library;           // its path
    std::string flavour;           // "tensorrt", "tensorrt_rtx"
    std::string tensorrt_version;  // "10.3.0"
    std::string others;            // " (also found: ...)" where this is not the version that was asked for; or empty
};

// "1.7.1" of "1.7.1.116": the build number behind it does not matter.
std::string ReleaseOf(std::string const& version);

// The plugin library that an engine needs: the file and what its metadata says.
struct PluginFile {
    std::string path;     // empty: none is needed, or the engine has it embedded
    std::string version;  // edgeformer's
    int cuda = 0;         // of its CUDA runtime: 13000
};

// The plugin library of a bundle's engine, as its metadata has it.
// Throws Fault EF754 (it is missing), EF755 (of another version than the engine's).
PluginFile ReadPlugin(Bundle const& bundle);

// Whether the library is the file that the build put there.
// Throws Fault EF756.
void CheckPluginFile(Bundle const& bundle, PluginFile const& plugin);

// Whether this machine can run the engine.
// Throws Fault EF650 (no GPU or driver), EF605 (no TensorRT), EF751 (other GPU), EF752 and EF753 (other TensorRT or
// TensorRT-RTX), EF757 (other flavour), EF758 (the driver is too old for the plugin library).
void CheckMachine(Bundle const& bundle, PluginFile const& plugin, Machine const& machine);

// Throws Fault EF650: there is no GPU or no driver.
void CheckGpu(Machine const& machine);

// Whether this machine can run engines at all; of an engine that is in no bundle nothing more is known.
// Throws Fault EF650, EF605.
void CheckMachine(Machine const& machine);

}  // namespace edgeformer
