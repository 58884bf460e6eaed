// Registering under both virtual tables of TensorRT's plugin registry. The libraries around it, and TensorRT-RTX
// itself, are in tests/plugins/test_registering.py.
#include "registering/registration.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "registering/registries.h"

namespace edgeformer::registering {
namespace {

class FakeCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    explicit FakeCreator(std::string name, std::string version = "1", std::string plugin_namespace = "")
        : name_(std::move(name)), version_(std::move(version)), namespace_(std::move(plugin_namespace)) {}

    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const*, nvinfer1::PluginFieldCollection const*,
                                      nvinfer1::TensorRTPhase) noexcept override {
        return nullptr;
    }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return nullptr; }
    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return name_.c_str(); }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return version_.c_str(); }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

private:
    std::string name_;
    std::string version_;
    std::string namespace_;
};

// A creator of a kind that has no name where ours has one.
class OldCreator final : public IPluginCreatorInterface {
public:
    nvinfer1::InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN CREATOR_V1", 1, 0}; }
};

#if NV_TENSORRT_MAJOR == 10
// The table of the headers at hand: what stands in registries.h for TensorRT 10 is held to it.
class RegistryOfHeaders final : public nvinfer1::IPluginRegistry {
public:
    bool registerCreator(nvinfer1::IPluginCreator&, nvinfer1::AsciiChar const*) noexcept override { return false; }
    nvinfer1::IPluginCreator* const* getPluginCreatorList(int32_t*) const noexcept override { return nullptr; }
    nvinfer1::IPluginCreator* getPluginCreator(nvinfer1::AsciiChar const*, nvinfer1::AsciiChar const*,
                                               nvinfer1::AsciiChar const*) noexcept override {
        return nullptr;
    }
    void setErrorRecorder(nvinfer1::IErrorRecorder*) noexcept override {}
    nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    bool deregisterCreator(nvinfer1::IPluginCreator const&) noexcept override { return false; }
    bool isParentSearchEnabled() const override { return false; }
    void setParentSearchEnabled(bool) override {}
    PluginLibraryHandle loadLibrary(nvinfer1::AsciiChar const*) noexcept override { return nullptr; }
    void deregisterLibrary(PluginLibraryHandle) noexcept override {}
    bool registerCreator(IPluginCreatorInterface& creator, nvinfer1::AsciiChar const* name) noexcept override {
        return shelf.Register(creator, name);
    }
    IPluginCreatorInterface* const* getAllCreators(int32_t* count) const noexcept override { return shelf.All(count); }
    IPluginCreatorInterface* getCreator(nvinfer1::AsciiChar const*, nvinfer1::AsciiChar const*,
                                        nvinfer1::AsciiChar const*) noexcept override {
        return nullptr;
    }
    bool deregisterCreator(IPluginCreatorInterface const& creator) noexcept override {
        return shelf.Deregister(creator);
    }
    nvinfer1::IPluginResource* acquirePluginResource(nvinfer1::AsciiChar const*,
                                                     nvinfer1::IPluginResource*) noexcept override {
        return nullptr;
    }
    int32_t releasePluginResource(nvinfer1::AsciiChar const*) noexcept override { return 0; }
    // Not in 10.3's headers.
    virtual IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t*) noexcept { return nullptr; }

    Shelf shelf;
};
#endif

template <class Double>
constexpr RegistrySlots kSlotsOf = kSlotsOfTensorRt10;
template <>
constexpr RegistrySlots kSlotsOf<RegistryOf11> = kSlotsOfTensorRt11;

template <class Double>
class RegistrationTest : public testing::Test {
protected:
    Shelf& shelf() { return double_.shelf; }
    Registry registry() { return Registry(&double_, kSlotsOf<Double>); }
    std::optional<Registration>& Register(std::vector<IPluginCreatorInterface*> const& creators) {
        return registration_.emplace(registry(), creators.data(), static_cast<int32_t>(creators.size())), registration_;
    }

    FakeCreator first_{"First"};
    FakeCreator second_{"Second", "2", "a namespace"};

private:
    Double double_;
    std::optional<Registration> registration_;
};

#if NV_TENSORRT_MAJOR == 10
using Doubles = testing::Types<RegistryOf10, RegistryOf11, RegistryOfHeaders>;
#else
using Doubles = testing::Types<RegistryOf10, RegistryOf11>;
#endif

class Names {
public:
    template <class Double>
    static std::string GetName(int) {
        if (std::is_same_v<Double, RegistryOf10>) return "TensorRt10";
        return std::is_same_v<Double, RegistryOf11> ? "TensorRt11" : "Headers";
    }
};
TYPED_TEST_SUITE(RegistrationTest, Doubles, Names);

TYPED_TEST(RegistrationTest, EveryCreatorIsThereAsLongAsTheRegistrationLives) {
    auto& registration = this->Register({&this->first_, &this->second_});
    EXPECT_EQ(registration->count(), 2);
    EXPECT_EQ(registration->refused(), 0);
    EXPECT_EQ(this->shelf().creators, (std::vector<IPluginCreatorInterface*>{&this->first_, &this->second_}));
    EXPECT_EQ(this->shelf().namespaces, (std::vector<std::string>{"", "a namespace"}));
    registration.reset();
    EXPECT_TRUE(this->shelf().creators.empty());
    EXPECT_EQ(this->shelf().removals, 2);
    EXPECT_EQ(this->shelf().others, 0);
}

TYPED_TEST(RegistrationTest, RegisteringAgainAfterTheEndIsLikeTheFirstTime) {
    for (int round = 1; round <= 3; ++round) {
        auto& registration = this->Register({&this->first_});
        EXPECT_EQ(this->shelf().creators.size(), 1U);
        registration.reset();
        EXPECT_TRUE(this->shelf().creators.empty());
        EXPECT_EQ(this->shelf().registrations, round);
    }
}

// TensorRT is not even asked: it would log an error.
TYPED_TEST(RegistrationTest, WhatIsThereStaysAndIsNotTakenOut) {
    FakeCreator host_own{"First"};
    OldCreator old;
    this->shelf().creators = {&old, &host_own};
    auto& registration = this->Register({&this->first_, &this->second_});
    EXPECT_EQ(registration->count(), 1);
    EXPECT_EQ(registration->refused(), 0);
    EXPECT_EQ(this->shelf().registrations, 1);
    registration.reset();
    EXPECT_EQ(this->shelf().creators, (std::vector<IPluginCreatorInterface*>{&old, &host_own}));
    EXPECT_EQ(this->shelf().removals, 1);
}

TYPED_TEST(RegistrationTest, VersionAndNamespaceTellCreatorsApart) {
    FakeCreator other_version{"Second", "1", "a namespace"};
    FakeCreator other_namespace{"Second", "2", ""};
    this->shelf().creators = {&other_version, &other_namespace};
    EXPECT_EQ(this->Register({&this->second_})->count(), 1);
    EXPECT_EQ(this->shelf().creators.size(), 3U);
}

TYPED_TEST(RegistrationTest, WhatTheHostTookOutIsLeftAlone) {
    auto& registration = this->Register({&this->first_, &this->second_});
    this->shelf().creators = {&this->second_};
    registration.reset();
    EXPECT_EQ(this->shelf().removals, 1);
    EXPECT_TRUE(this->shelf().creators.empty());
}

TYPED_TEST(RegistrationTest, RefusalsAreCountedAndNotTakenOut) {
    this->shelf().refuses = true;
    auto& registration = this->Register({&this->first_, &this->second_});
    EXPECT_EQ(registration->count(), 0);
    EXPECT_EQ(registration->refused(), 2);
    registration.reset();
    EXPECT_EQ(this->shelf().removals, 0);
}

TYPED_TEST(RegistrationTest, CreatorsOfAnotherKindAreRefusedHere) {
    OldCreator old;
    auto& registration = this->Register({&old, nullptr, &this->first_});
    EXPECT_EQ(registration->refused(), 2);
    EXPECT_EQ(registration->count(), 1);
    EXPECT_EQ(this->shelf().registrations, 1);
}

TYPED_TEST(RegistrationTest, ThereIsRoomForSixteen) {
    std::vector<FakeCreator> many;
    for (int i = 0; i <= Registration::kMostCreators; ++i) many.emplace_back("Creator" + std::to_string(i));
    std::vector<IPluginCreatorInterface*> creators;
    for (FakeCreator& creator : many) creators.push_back(&creator);
    auto& registration = this->Register(creators);
    EXPECT_EQ(registration->count(), 16);
    EXPECT_EQ(registration->refused(), 1);
    EXPECT_EQ(this->shelf().creators.size(), 16U);
    registration.reset();
    EXPECT_TRUE(this->shelf().creators.empty());
}

TYPED_TEST(RegistrationTest, NoCreatorsAreNone) {
    Registration const none(this->registry(), nullptr, 1);
    EXPECT_EQ(none.count(), 0);
    EXPECT_EQ(none.refused(), 0);
}

}  // namespace
}  // namespace edgeformer::registering
