// Plugin creators in a registry for as long as an object lives.
#pragma once

#include <NvInferRuntime.h>

#include <array>

#include "registering/registry_slots.h"

namespace edgeformer::registering {

class Registration {
public:
    static constexpr int32_t kMostCreators = 16;

    // Registers each of the creators of which the registry does not have one by the same name, version and namespace.
    Registration(Registry const& registry, nvinfer1::IPluginCreatorInterface* const* creators, int32_t count) noexcept;

    // Takes out those that were registered here and are still there.
    ~Registration() noexcept;

    Registration(Registration const&) = delete;
    Registration& operator=(Registration const&) = delete;

    // How many were registered here.
    int32_t count() const noexcept { return count_; }

    // How many could not be: TensorRT refused them, or there are more than kMostCreators.
    int32_t refused() const noexcept { return refused_; }

private:
    Registry registry_;
    std::array<nvinfer1::IPluginCreatorInterface*, kMostCreators> registered_{};
    int32_t count_ = 0;
    int32_t refused_ = 0;
};

}  // namespace edgeformer::registering
