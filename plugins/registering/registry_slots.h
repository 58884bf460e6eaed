// Where TensorRT's plugin registry has the functions that are called here: TensorRT's releases disagree about it.
//
// IPluginRegistry is a C++ interface, so a caller finds its functions by their place in the virtual table. The headers
// of TensorRT 10 declare four functions that TensorRT 11 and TensorRT-RTX lack (those that take an IPluginCreator): a
// caller compiled with the headers of one crashes in the other. The headers of TensorRT 11 are not needed to call it:
// these places are. An interface's table has its virtual functions in the order of their declaration, and the
// destructor twice (Itanium C++ ABI, 2.5.2).
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>

namespace edgeformer::registering {

// Places in the virtual table of one TensorRT's IPluginRegistry.
struct RegistrySlots {
    std::size_t register_creator;
    std::size_t all_creators;
    std::size_t deregister_creator;
};

// TensorRT 10: registerCreator, getPluginCreatorList and getPluginCreator come before the destructor, and
// deregisterCreator after getErrorRecorder.
inline constexpr RegistrySlots kSlotsOfTensorRt10{12, 13, 15};

// TensorRT 11 and TensorRT-RTX: the destructor comes first.
inline constexpr RegistrySlots kSlotsOfTensorRt11{8, 9, 11};

// A plugin registry that is called by the places in its table.
class Registry {
public:
    // `registry` is an IPluginRegistry whose table is as `slots` says.
    Registry(void* registry, RegistrySlots const& slots) noexcept : registry_(registry), slots_(slots) {}

    // False where TensorRT refuses it: it has one of this name, version and namespace.
    bool Register(nvinfer1::IPluginCreatorInterface& creator, char const* plugin_namespace) const noexcept {
        return Call<bool>(slots_.register_creator, &creator, plugin_namespace);
    }

    bool Deregister(nvinfer1::IPluginCreatorInterface const& creator) const noexcept {
        return Call<bool>(slots_.deregister_creator, &creator);
    }

    // Null, and a count of 0, where there are none.
    nvinfer1::IPluginCreatorInterface* const* AllCreators(int32_t& count) const noexcept {
        count = 0;
        return Call<nvinfer1::IPluginCreatorInterface* const*>(slots_.all_creators, &count);
    }

private:
    template <class Result, class... Arguments>
    Result Call(std::size_t slot, Arguments... arguments) const noexcept {
        using Function = Result (*)(void*, Arguments...);
        void* const* const table = *static_cast<void* const* const*>(registry_);
        return reinterpret_cast<Function>(table[slot])(registry_, arguments...);
    }

    void* registry_;
    RegistrySlots slots_;
};

}  // namespace edgeformer::registering
