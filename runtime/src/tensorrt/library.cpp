#include "tensorrt/library.h"

#include <dlfcn.h>

#include <cstdlib>

#include "common/text.h"
#include "rejected.h"

namespace edgeformer::tensorrt {
namespace {

struct Opened {
    void* handle = nullptr;
    std::string reason;  // where there is none
};

Opened OpenFile(char const* name, int flags) {
    Opened opened;
    // RTLD_LOCAL: two TensorRT in one process do not see each other's symbols.
    opened.handle = dlopen(name, flags | RTLD_LOCAL);
    if (opened.handle == nullptr) {
        char const* const reason = dlerror();
        opened.reason = reason != nullptr ? reason : "it is not loaded";
    }
    return opened;
}

std::string FromEnvironment(Abi const& abi) {
    char const* const value = std::getenv(abi.variable);
    return value != nullptr ? value : "";
}

std::string HowToGet(Abi const& abi) {
    if (abi.flavour == Flavour::kTensorRtRtx) {
        return "install the TensorRT-RTX that built the engine (pip install tensorrt-rtx, or NVIDIA's archive), or "
               "name "
               "its libtensorrt_rtx.so.1 in EDGEFORMER_TENSORRT_RTX_LIBRARY";
    }
    return Text(
        "install the TensorRT that built the engine (on a Jetson it comes with JetPack: sudo apt install "
        "libnvinfer",
        abi.flavour == Flavour::kTensorRt10 ? "10" : "11", "), or name its ", abi.soname, " in ", abi.variable);
}

template <class Function>
Function Find(void* handle, char const* name) {
    return reinterpret_cast<Function>(dlsym(handle, name));
}

// The file that a symbol of the library lies in.
std::string FileOf(void* symbol, std::string const& otherwise) {
    Dl_info info{};
    return dladdr(symbol, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : otherwise;
}

// Null and a reason where the library is not there at all.
Opened Search(Abi const& abi, std::string const& path, std::string& name) {
    name = !path.empty() ? path : FromEnvironment(abi);
    if (!name.empty()) {
        return OpenFile(name.c_str(), RTLD_NOW);
    }
    name = abi.soname;
    Opened opened = OpenFile(abi.soname, RTLD_NOW | RTLD_NOLOAD);
    return opened.handle != nullptr ? opened : OpenFile(abi.soname, RTLD_NOW);
}

[[noreturn]] void Missing(Abi const& abi, std::string const& name, std::string const& reason) {
    throw Rejected(EDGEFORMER_UNAVAILABLE, "EF605",
                   Text(abi.name, " cannot be opened as ", name, ": ", reason, "; ", HowToGet(abi)));
}

}  // namespace

std::string VersionText(int32_t version) { return Text(version / 10000, ".", version / 100 % 100, ".", version % 100); }

std::string Library::VersionText() const { return tensorrt::VersionText(version_); }

std::shared_ptr<Library const> Library::Open(Flavour flavour, std::string const& path) {
    Abi const& abi = AbiOf(flavour);
    std::string name;
    Opened const opened = Search(abi, path, name);
    if (opened.handle == nullptr) {
        Missing(abi, name, opened.reason);
    }
    auto const version = Find<int32_t (*)()>(opened.handle, "getInferLibVersion");
    std::shared_ptr<Library> library(new Library);
    library->create_runtime_ = Find<void* (*)(void*, int32_t)>(opened.handle, "createInferRuntime_INTERNAL");
    if (version == nullptr || library->create_runtime_ == nullptr) {
        throw Rejected(
            EDGEFORMER_UNAVAILABLE, "EF605",
            Text(name, " is not a TensorRT runtime: it has no ",
                 version == nullptr ? "getInferLibVersion" : "createInferRuntime_INTERNAL", "; ", HowToGet(abi)));
    }
    library->abi_ = &abi;
    library->version_ = version();
    library->path_ = FileOf(reinterpret_cast<void*>(library->create_runtime_), name);
    // A call through another version's vtable would run any method at all.
    if (library->version_ < abi.oldest || library->version_ >= abi.newest) {
        throw Rejected(EDGEFORMER_UNAVAILABLE, "EF605",
                       Text(library->path_, " is version ", library->VersionText(), "; as ", abi.name,
                            " this runtime takes ", tensorrt::VersionText(abi.oldest), " and later, below ",
                            tensorrt::VersionText(abi.newest), ": ", HowToGet(abi)));
    }
    return library;
}

std::shared_ptr<Library const> Library::OpenTensorRt(std::string const& path) {
    std::string const named = !path.empty() ? path : FromEnvironment(AbiOf(Flavour::kTensorRt11));
    if (!named.empty()) {
        Opened const opened = OpenFile(named.c_str(), RTLD_NOW);
        if (opened.handle == nullptr) {
            Missing(AbiOf(Flavour::kTensorRt11), named, opened.reason);
        }
        auto const version = Find<int32_t (*)()>(opened.handle, "getInferLibVersion");
        bool const is10 = version != nullptr && version() < AbiOf(Flavour::kTensorRt11).oldest;
        return Open(is10 ? Flavour::kTensorRt10 : Flavour::kTensorRt11, named);
    }
    // What the process uses already comes first, whichever it is.
    for (int const flags : {RTLD_NOW | RTLD_NOLOAD, RTLD_NOW + 0}) {
        for (Flavour const flavour : {Flavour::kTensorRt11, Flavour::kTensorRt10}) {
            if (OpenFile(AbiOf(flavour).soname, flags).handle != nullptr) {
                return Open(flavour, {});
            }
        }
    }
    throw Rejected(EDGEFORMER_UNAVAILABLE, "EF605",
                   Text("TensorRT is not installed: neither ", AbiOf(Flavour::kTensorRt11).soname, " nor ",
                        AbiOf(Flavour::kTensorRt10).soname, " can be opened; ", HowToGet(AbiOf(Flavour::kTensorRt10))));
}

void* Library::CreateRuntime(void* logger) const noexcept { return create_runtime_(logger, version_); }

}  // namespace edgeformer::tensorrt
