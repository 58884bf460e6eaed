// Where TensorRT's virtual methods stand: TensorRT is opened at run time, and its interfaces are called by their place
// in the vtable, so that one library serves TensorRT 10, TensorRT 11 and TensorRT-RTX. Their headers are not needed.
//
// What is relied on, of the Itanium C++ ABI that both x86-64 and aarch64 Linux have: an object begins with the address
// of its vtable; a virtual destructor takes two places, of which the second deletes; a method is a function that takes
// the object first. Interface objects (IRuntime, ICudaEngine, IExecutionContext, IRuntimeConfig) hold, behind that
// address, a pointer to the object that does the work; IPluginRegistry does the work itself.
#pragma once

#include <cstdint>

namespace edgeformer::tensorrt {

// Which of the three libraries. They differ in their vtables, and their engines are not interchangeable.
enum class Flavour { kTensorRt10, kTensorRt11, kTensorRtRtx };

// A place in a vtable; kAbsent where the flavour has no such method.
using Slot = int32_t;
inline constexpr Slot kAbsent = -1;
inline constexpr Slot kDeletingDestructor = 1;

struct Abi {
    struct Runtime {
        Slot deserialize_engine;      // (void const* blob, size_t bytes) -> ICudaEngine*
        Slot get_plugin_registry;     // () -> IPluginRegistry*
        Slot set_host_code_allowed;   // (bool) -> void
        Slot get_engine_header_size;  // () -> int64_t
        Slot get_engine_validity;     // (void const* blob, int64_t bytes, uint64_t* diagnostics) -> int32_t
    };
    struct Engine {
        Slot create_context;              // (int32_t strategy) -> IExecutionContext*
        Slot create_context_with_config;  // (IRuntimeConfig*) -> IExecutionContext*
        Slot create_runtime_config;       // () -> IRuntimeConfig*
        Slot get_profile_count;           // () -> int32_t
        Slot get_tensor_shape;            // (char const* name) -> Dims
        Slot get_tensor_type;             // (char const* name) -> int32_t
        Slot get_tensor_location;         // (char const* name) -> int32_t
        Slot is_shape_tensor;             // (char const* name) -> bool
        Slot get_tensor_mode;             // (char const* name) -> int32_t
        Slot get_tensor_format;           // (char const* name) -> int32_t
        Slot get_profile_shape;           // (char const* name, int32_t profile, int32_t which) -> Dims
        Slot get_tensor_count;            // () -> int32_t
        Slot get_tensor_name;             // (int32_t index) -> char const*
        Slot get_device_memory;           // () -> int64_t, the most over all profiles
    };
    struct Context {
        Slot set_profile;           // (int32_t profile, cudaStream_t) -> bool
        Slot set_input_shape;       // (char const* name, Dims const&) -> bool
        Slot get_tensor_shape;      // (char const* name) -> Dims
        Slot set_tensor_address;    // (char const* name, void*) -> bool
        Slot set_output_allocator;  // (char const* name, IOutputAllocator*) -> bool
        Slot enqueue;               // (cudaStream_t) -> bool
        Slot set_device_memory;     // (void*, int64_t bytes) -> void
        Slot is_stream_capturable;  // (cudaStream_t) -> bool
    };
    struct Config {
        Slot set_allocation_strategy;    // (int32_t) -> void
        Slot set_kernel_specialization;  // (int32_t) -> void
    };
    struct Registry {
        Slot load_library;  // (char const* path) -> void*
    };

    Flavour flavour;
    char const* name;         // "TensorRT 10"
    char const* soname;       // the library's name for dlopen
    char const* variable;     // the environment variable that names another file
    int32_t oldest;           // getInferLibVersion: 10000 * major + 100 * minor + patch
    int32_t newest;           // the first that is not taken
    bool versioned_logger;    // ILogger is an IVersionedInterface: its language and version come before log
    bool plain_reallocation;  // IOutputAllocator has reallocateOutput before reallocateOutputAsync
    Runtime runtime;
    Engine engine;
    Context context;
    Config config;
    Registry registry;
};

Abi const& AbiOf(Flavour flavour) noexcept;

}  // namespace edgeformer::tensorrt
