#include "registering/registration.h"

#include <cstring>

namespace edgeformer::registering {
namespace {

using nvinfer1::IPluginCreatorInterface;
using nvinfer1::IPluginCreatorV3One;

// The creator as what has a name, or null: creators of other kinds have other functions.
IPluginCreatorV3One* Named(IPluginCreatorInterface* creator) noexcept {
    bool const named = creator != nullptr && std::strcmp(creator->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0;
    return named ? static_cast<IPluginCreatorV3One*>(creator) : nullptr;
}

bool SameKey(IPluginCreatorV3One& left, IPluginCreatorV3One& right) noexcept {
    return std::strcmp(left.getPluginName(), right.getPluginName()) == 0 &&
           std::strcmp(left.getPluginVersion(), right.getPluginVersion()) == 0 &&
           std::strcmp(left.getPluginNamespace(), right.getPluginNamespace()) == 0;
}

// Whether the registry has a creator of which `matches` is true. Its list is read because it logs an error when it is
// asked for one that it does not have.
template <class Matches>
bool Has(Registry const& registry, Matches matches) noexcept {
    int32_t count = 0;
    IPluginCreatorInterface* const* const creators = registry.AllCreators(count);
    for (int32_t i = 0; creators != nullptr && i < count; ++i) {
        if (matches(creators[i])) return true;
    }
    return false;
}

}  // namespace

Registration::Registration(Registry const& registry, IPluginCreatorInterface* const* creators, int32_t count) noexcept
    : registry_(registry) {
    for (int32_t i = 0; creators != nullptr && i < count; ++i) {
        IPluginCreatorV3One* const creator = Named(creators[i]);
        if (creator == nullptr) {
            ++refused_;
            continue;
        }
        auto const same = [creator](IPluginCreatorInterface* other) {
            IPluginCreatorV3One* const named = Named(other);
            return named != nullptr && SameKey(*named, *creator);
        };
        if (Has(registry_, same)) continue;
        if (count_ < kMostCreators && registry_.Register(*creator, creator->getPluginNamespace())) {
            registered_[count_++] = creator;
        } else {
            ++refused_;
        }
    }
}

Registration::~Registration() noexcept {
    for (int32_t i = 0; i < count_; ++i) {
        IPluginCreatorInterface* const own = registered_[i];
        // Not there any more where the host has emptied its registry or unloaded the library that it loaded itself.
        if (Has(registry_, [own](IPluginCreatorInterface* other) { return other == own; })) registry_.Deregister(*own);
    }
}

}  // namespace edgeformer::registering
