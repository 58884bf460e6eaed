// TensorRT's library, opened at run time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensorrt/abi.h"

namespace edgeformer::tensorrt {

// Stays open until the process ends: TensorRT has threads and static objects of its own.
class Library {
public:
    // Opens `path`, or where that is empty the file that the flavour's environment variable names, the library that the
    // process has loaded already, or the one that the dynamic linker finds. Throws Rejected where there is none, or one
    // of another flavour or of a version whose interfaces are not known.
    static std::shared_ptr<Library const> Open(Flavour flavour, std::string const& path);

    // For the engines of TensorRT (not RTX), which do not say which major version built them: 10 or 11, whichever
    // `path`, the environment or the process has; both of them found: the newer.
    static std::shared_ptr<Library const> OpenTensorRt(std::string const& path);

    Abi const& abi() const noexcept { return *abi_; }
    std::string const& path() const noexcept { return path_; }  // of the file that was opened
    int32_t version() const noexcept { return version_; }       // 101401
    std::string VersionText() const;                            // "10.14.1"

    // createInferRuntime_INTERNAL with the library's own version: null where TensorRT cannot start.
    void* CreateRuntime(void* logger) const noexcept;

private:
    Library() = default;

    Abi const* abi_ = nullptr;
    std::string path_;
    int32_t version_ = 0;
    void* (*create_runtime_)(void*, int32_t) = nullptr;
};

// "10.14.1" of 101401.
std::string VersionText(int32_t version);

}  // namespace edgeformer::tensorrt
