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

// The libraries of TensorRT in the order that they are looked for: that of the version first, if it is known.
std::vector<Abi const*> TensorRts(std::string const& version) {
    std::vector<Abi const*> order = {&AbiOf(Flavour::kTensorRt11), &AbiOf(Flavour::kTensorRt10)};
    if (version.substr(0, version.find('.')) == "10") {
        std::swap(order[0], order[1]);
    }
    return order;
}

DynamicLibrary Find(TensorRtRequest const& request, std::string* problem) {
    Abi const& rtx = AbiOf(Flavour::kTensorRtRtx);
    if (request.flavour == "tensorrt_rtx") {
        DynamicLibrary library = FindLibrary(request.library, rtx.variable, {rtx.soname}, problem);
        if (!library) {
            *problem += " (`pip install tensorrt-rtx` has it, in tensorrt_rtx_libs/)";
        }
        return library;
    }
    std::vector<Abi const*> const order = TensorRts(request.version);
    if (!request.version.empty()) {
        // One that would fit goes before another that the process has loaded already.
        DynamicLibrary library = FindLibrary(request.library, order[0]->variable, {order[0]->soname}, problem);
        if (library) {
            return library;
        }
    }
    DynamicLibrary library =
        FindLibrary(request.library, order[0]->variable, {order[0]->soname, order[1]->soname}, problem);
    if (!library && request.flavour.empty() && request.library.empty()) {
        std::string also;
        library = FindLibrary(request.library, rtx.variable, {rtx.soname}, &also);
        *problem += Text("; nor is there TensorRT-RTX: ", also);
    }
    return library;
}

// A TensorRT's version, or 0 where the library is something else.
int32_t VersionOf(DynamicLibrary const& library) {
    auto const get_version = reinterpret_cast<int32_t (*)()>(library.Symbol("getInferLibVersion"));
    return get_version != nullptr ? get_version() : 0;
}

}  // namespace

std::string VersionText(int32_t version) {
    int32_t const major = version <= kLastOldNumber ? 1000 : 10000;
    return Text(version / major, ".", version % major / 100, ".", version % 100);
}

std::string Library::VersionText() const { return tensorrt::VersionText(version_); }

std::shared_ptr<Library const> Library::Open(TensorRtRequest const& request, std::string* problem) {
    DynamicLibrary found = Find(request, problem);
    if (!found) {
        return nullptr;
    }
    problem->clear();
    int32_t const version = VersionOf(found);
    std::shared_ptr<Library> library(new Library);
    void* const create = found.Symbol("createInferRuntime_INTERNAL");
    if (version == 0 || create == nullptr) {
        *problem =
            Text(request.library.empty() ? "the library that was found" : request.library,
                 " is not TensorRT's: it has no ", version == 0 ? "getInferLibVersion" : "createInferRuntime_INTERNAL");
        return nullptr;
    }
    library->create_runtime_ = reinterpret_cast<void* (*)(void*, int32_t)>(create);
    library->version_ = version;
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

std::string Library::Others(std::string const& opened) {
    std::string text;
    for (Flavour const flavour : kFlavours) {
        Abi const& abi = AbiOf(flavour);
        std::string problem;
        DynamicLibrary library = DynamicLibrary::OpenLoaded(abi.soname);
        if (!library) {
            library = DynamicLibrary::Open(abi.soname, &problem);
        }
        void* const create = library ? library.Symbol("createInferRuntime_INTERNAL") : nullptr;
        std::string const path = create != nullptr ? DynamicLibrary::PathOf(create) : opened;
        if (path != opened && text.find(path) == std::string::npos) {
            char const* const name = flavour == Flavour::kTensorRtRtx ? "TensorRT-RTX " : "TensorRT ";
            text += Text(text.empty() ? " (also found: " : ", ", name, tensorrt::VersionText(VersionOf(library)), ", ",
                         path);
        }
        library.Keep();
    }
    return text.empty() ? text : text + ")";
}

void* Library::CreateRuntime(void* logger) const noexcept { return create_runtime_(logger, version_); }

}  // namespace edgeformer::tensorrt
