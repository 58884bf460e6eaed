// Test doubles of TensorRT's plugin registry: what it does, under the virtual tables of its releases.
//
// The order of the virtual functions is what they are for, so each is written out. That of TensorRT 10 was read from
// its headers (10.14), that of TensorRT 11 and TensorRT-RTX from theirs (TensorRT-RTX 1.7 itself is in tests/plugins).
#pragma once

#include <NvInferRuntime.h>

#include <cstring>
#include <string>
#include <vector>

namespace edgeformer::registering {

using nvinfer1::IPluginCreatorInterface;

// What is behind every table.
class Shelf {
public:
    // As TensorRT does it: refuses one of the same name, version and namespace.
    bool Register(IPluginCreatorInterface& creator, char const* plugin_namespace) {
        ++registrations;
        for (IPluginCreatorInterface* other : creators) {
            if (Key(other) == Key(&creator)) return false;
        }
        if (refuses) return false;
        namespaces.emplace_back(plugin_namespace);
        creators.push_back(&creator);
        return true;
    }

    bool Deregister(IPluginCreatorInterface const& creator) {
        ++removals;
        for (auto other = creators.begin(); other != creators.end(); ++other) {
            if (*other == &creator) {
                creators.erase(other);
                return true;
            }
        }
        return false;
    }

    IPluginCreatorInterface* const* All(int32_t* count) const {
        *count = static_cast<int32_t>(creators.size());
        return creators.empty() ? nullptr : creators.data();
    }

    static std::string Key(IPluginCreatorInterface* creator) {
        if (std::strcmp(creator->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") != 0) return "another kind";
        auto* const named = static_cast<nvinfer1::IPluginCreatorV3One*>(creator);
        return std::string(named->getPluginName()) + " " + named->getPluginVersion() + " '" +
               named->getPluginNamespace() + "'";
    }

    std::vector<IPluginCreatorInterface*> creators;
    std::vector<std::string> namespaces;  // that were asked for
    int registrations = 0;                // calls, successful or not
    int removals = 0;                     // calls, successful or not
    int others = 0;                       // calls of anything else
    bool refuses = false;
};

// TensorRT 10's table.
class RegistryOf10 {
public:
    virtual bool registerCreatorV1(void*, char const*) noexcept { return Other<bool>(); }
    virtual void* getPluginCreatorList(int32_t*) const noexcept { return Other<void*>(); }
    virtual void* getPluginCreator(char const*, char const*, char const*) noexcept { return Other<void*>(); }
    virtual ~RegistryOf10() noexcept = default;
    virtual void setErrorRecorder(void*) noexcept { ++shelf.others; }
    virtual void* getErrorRecorder() const noexcept { return Other<void*>(); }
    virtual bool deregisterCreatorV1(void const*) noexcept { return Other<bool>(); }
    virtual bool isParentSearchEnabled() const { return Other<bool>(); }
    virtual void setParentSearchEnabled(bool) { ++shelf.others; }
    virtual void* loadLibrary(char const*) noexcept { return Other<void*>(); }
    virtual void deregisterLibrary(void*) noexcept { ++shelf.others; }
    virtual bool registerCreator(IPluginCreatorInterface& creator, char const* plugin_namespace) noexcept {
        return shelf.Register(creator, plugin_namespace);
    }
    virtual IPluginCreatorInterface* const* getAllCreators(int32_t* count) const noexcept { return shelf.All(count); }
    virtual void* getCreator(char const*, char const*, char const*) noexcept { return Other<void*>(); }
    virtual bool deregisterCreator(IPluginCreatorInterface const& creator) noexcept {
        return shelf.Deregister(creator);
    }
    virtual void* acquirePluginResource(char const*, void*) noexcept { return Other<void*>(); }
    virtual int32_t releasePluginResource(char const*) noexcept { return Other<int32_t>(); }
    virtual void* getAllCreatorsRecursive(int32_t*) noexcept { return Other<void*>(); }

    mutable Shelf shelf;

private:
    template <class Result>
    Result Other() const noexcept {
        ++shelf.others;
        return Result{};
    }
};

// The table of TensorRT 11 and TensorRT-RTX: without the four functions that take or give an IPluginCreator.
class RegistryOf11 {
public:
    virtual ~RegistryOf11() noexcept = default;
    virtual void setErrorRecorder(void*) noexcept { ++shelf.others; }
    virtual void* getErrorRecorder() const noexcept { return Other<void*>(); }
    virtual bool isParentSearchEnabled() const { return Other<bool>(); }
    virtual void setParentSearchEnabled(bool) { ++shelf.others; }
    virtual void* loadLibrary(char const*) noexcept { return Other<void*>(); }
    virtual void deregisterLibrary(void*) noexcept { ++shelf.others; }
    virtual bool registerCreator(IPluginCreatorInterface& creator, char const* plugin_namespace) noexcept {
        return shelf.Register(creator, plugin_namespace);
    }
    virtual IPluginCreatorInterface* const* getAllCreators(int32_t* count) const noexcept { return shelf.All(count); }
    virtual void* getCreator(char const*, char const*, char const*) noexcept { return Other<void*>(); }
    virtual bool deregisterCreator(IPluginCreatorInterface const& creator) noexcept {
        return shelf.Deregister(creator);
    }
    virtual void* acquirePluginResource(char const*, void*) noexcept { return Other<void*>(); }
    virtual int32_t releasePluginResource(char const*) noexcept { return Other<int32_t>(); }
    virtual void* getAllCreatorsRecursive(int32_t*) noexcept { return Other<void*>(); }

    mutable Shelf shelf;

private:
    template <class Result>
    Result Other() const noexcept {
        ++shelf.others;
        return Result{};
    }
};

}  // namespace edgeformer::registering
