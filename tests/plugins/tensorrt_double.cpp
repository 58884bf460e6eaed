// A library in TensorRT's place, whose plugin registry has the virtual table of REGISTRY (registering/registries.h). As
// it ends it says which calls there were.
#include <cstdio>

#include "registering/registries.h"

namespace {

struct Reporting {
    ~Reporting() {
        auto const& shelf = registry.shelf;
        std::fprintf(stderr, "registered %d, removed %d, left %zu, others %d\n", shelf.registrations, shelf.removals,
                     shelf.creators.size(), shelf.others);
    }
    edgeformer::registering::REGISTRY registry;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginRegistry* getPluginRegistry() noexcept {
    static Reporting reporting;
    return reinterpret_cast<nvinfer1::IPluginRegistry*>(&reporting.registry);
}
