// How tests set up the stand-in for libcuda.so.1, and look at it.
#pragma once

#include <cstdint>

namespace fake {

struct Driver {
    // What it does.
    int32_t init_result = 0;
    int32_t version = 12040;
    int32_t devices = 1;
    int32_t sm = 87;  // compute capability times ten
    int32_t integrated = 0;
    int32_t result = 0;  // of every call but the ones with a result of their own
    int32_t alloc_result = 0;
    int32_t instantiate_result = 0;
    int32_t module_result = 0;

    // What was done with it.
    int32_t calls = 0;
    int32_t retained = 0;
    int32_t allocations = 0;  // that live
    uint32_t host_flags = 0;
    uint32_t stream_flags = 0;
    int32_t mode = -1;
    int32_t capturing = 0;
    int32_t graphs_destroyed = 0;
    int32_t executables_destroyed = 0;
    int32_t launches = 0;
    int32_t modules = 0;  // that live
    int32_t kernels = 0;  // launched

    // What becomes of a kernel's launch; null: nothing.
    void (*launch)(char const* kernel, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                   void const* parameter) = nullptr;

    // Addresses to give out.
    char primary = 0, stream = 0, graph = 0, executable = 0, module = 0;
};

extern "C" Driver* fakeCudaDriver();

}  // namespace fake
