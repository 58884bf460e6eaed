#include "tensorrt/library.h"

#include <array>
#include <utility>
#include <vector>

#include "common/text.h"
#include "dynamic_library.h"

namespace edgeformer::tensorrt {
namespace {

constexpr std::array<Flavour, 3> kFlavours = {Flavour::kTensorRt11, Flavour::kTensorRt10, Flavour::kTensorRtRtx};
constexpr int32_t kLastOldNumber = 9999;  // of TensorRT 9: 1000 * major + 100 * minor + patch

// The flavour that a library of this version has; null: one whose vtables are not known. The numbers of TensorRT-RTX 1
// lie between those of TensorRT 9 and 10.
Abi const* AbiOfVersion(int32_t version) noexcept {
    for (Flavour const flavour : kFlavours) {
        Abi const& abi = AbiOf(flavour);
        if (version >= abi.oldest && version < abi.newest) {
            return &abi;
        }
    }
    return nullptr;
}

DynamicLibrary Find(std::string const& flavour, std::string const& named, std::string* problem) {
    Abi const& rtx = AbiOf(Flavour::kTensorRtRtx);
    Abi const& newer = AbiOf(Flavour::kTensorRt11);
    if (flavour == "tensorrt_rtx") {
        DynamicLibrary library = FindLibrary(named, rtx.variable, {rtx.soname}, problem);
        if (!library) {
            *problem += " (`pip install tensorrt-rtx` has it, in tensorrt_rtx_libs/)";
        }
        return library;
    }
    DynamicLibrary library =
        FindLibrary(named, newer.variable, {newer.soname, AbiOf(Flavour::kTensorRt10).soname}, problem);
    if (!library && flavour.empty() && named.empty()) {
        std::string also;
        library = FindLibrary(named, rtx.variable, {rtx.soname}, &also);
        *problem += Text("; nor is there TensorRT-RTX: ", also);
    }
    return library;
}

}  // namespace

std::string VersionText(int32_t version) {
    int32_t const major = version <= kLastOldNumber ? 1000 : 10000;
    return Text(version / major, ".", version % major / 100, ".", version % 100);
}

std::string Library::VersionText() const { return tensorrt::VersionText(version_); }

std::shared_ptr<Library const> Library::Open(std::string const& flavour, std::string const& named,
                                             std::string* problem) {
    DynamicLibrary found = Find(flavour, named, problem);
    if (!found) {
        return nullptr;
    }
    problem->clear();
    auto const get_version = reinterpret_cast<int32_t (*)()>(found.Symbol("getInferLibVersion"));
    std::shared_ptr<Library> library(new Library);
    void* const create = found.Symbol("createInferRuntime_INTERNAL");
    if (get_version == nullptr || create == nullptr) {
        *problem = Text(named.empty() ? "the library that was found" : named, " is not TensorRT's: it has no ",
                        get_version == nullptr ? "getInferLibVersion" : "createInferRuntime_INTERNAL");
        return nullptr;
    }
    library->create_runtime_ = reinterpret_cast<void* (*)(void*, int32_t)>(create);
    library->version_ = get_version();
    library->path_ = DynamicLibrary::PathOf(create);
    library->abi_ = AbiOfVersion(library->version_);
    if (library->abi_ == nullptr) {
        // A call through another version's vtable would run any method at all.
        std::string taken;
        for (Flavour const flavour : kFlavours) {
            taken += Text(taken.empty() ? "" : ", ", AbiOf(flavour).name, " from ",
                          tensorrt::VersionText(AbiOf(flavour).oldest));
        }
        *problem = Text(library->path_, " is version ", library->VersionText(),
                        ", whose interfaces this edgeformer does "
                        "not know. It takes ",
                        taken, ": install one of them, or a newer edgeformer");
        return nullptr;
    }
    found.Keep();
    return library;
}

void* Library::CreateRuntime(void* logger) const noexcept { return create_runtime_(logger, version_); }

}  // namespace edgeformer::tensorrt
