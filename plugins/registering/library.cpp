// libedgeformer_register_*.so: opening it registers the plugins with TensorRT, closing it takes them out again. For
// hosts that open a plugin library and do no more; those that call IPluginRegistry::loadLibrary take the plugin
// library.
//
// The linker makes TensorRT's own library and the plugin library needed ones (registering.cmake), so both are loaded by
// now. What is called in them is looked up in exactly these two: every TensorRT exports a getPluginRegistry, many
// plugin libraries a getCreators, and a process may hold several.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <optional>

#include "registering/registration.h"

namespace edgeformer::registering {
namespace {

using GetPluginRegistry = nvinfer1::IPluginRegistry* (*)();
using GetCreators = nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&);

// The function `name` of a library that is loaded; null, and a line on stderr, where it has none.
template <class Function>
Function Find(char const* library, char const* name) noexcept {
    void* const handle = dlopen(library, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    void* const function = handle != nullptr ? dlsym(handle, name) : nullptr;
    if (function == nullptr) {
        std::fprintf(stderr, "edgeformer: no plugin was registered: %s has no %s\n", library, name);
    }
    // This library needs that one, which therefore stays.
    if (handle != nullptr) dlclose(handle);
    return reinterpret_cast<Function>(function);
}

class Library {
public:
    Library() noexcept {
        auto const get_plugin_registry = Find<GetPluginRegistry>(EDGEFORMER_TENSORRT_LIBRARY, "getPluginRegistry");
        auto const get_creators = Find<GetCreators>(EDGEFORMER_PLUGIN_LIBRARY, "getCreators");
        if (get_plugin_registry == nullptr || get_creators == nullptr) return;
        void* const registry = get_plugin_registry();
        if (registry == nullptr) {
            std::fputs("edgeformer: no plugin was registered: TensorRT has no plugin registry\n", stderr);
            return;
        }
        int32_t count = 0;
        nvinfer1::IPluginCreatorInterface* const* const creators = get_creators(count);
        registration_.emplace(Registry(registry, EDGEFORMER_REGISTRY_SLOTS), creators, count);
        if (registration_->refused() > 0) {
            std::fprintf(stderr, "edgeformer: TensorRT refused %d of %d plugins\n", registration_->refused(), count);
        }
    }

private:
    std::optional<Registration> registration_;
};

// Registry and creators are made before its constructor returns, so they outlive it, when the process ends, too.
Library const library;

}  // namespace
}  // namespace edgeformer::registering
