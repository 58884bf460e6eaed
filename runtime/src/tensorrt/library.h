// TensorRT's library, opened at run time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "machine.h"
#include "tensorrt/abi.h"

namespace edgeformer::tensorrt {

class Library {
public:
    // Opens the file that was named, or looks for one as edgeformer.h says. It stays open until the process ends:
    // TensorRT has threads and static objects of its own. A file that was named may turn out to be of another flavour
    // or version than was asked for.
    //
    // Null where there is none, or one whose interfaces are not known: `problem` says why, and what to do.
    static std::shared_ptr<Library const> Open(TensorRtRequest const& request, std::string* problem);

    // What else there is than the library that was opened, for messages: " (also found: TensorRT 11.4.0, /...)", or
    // empty. All of it stays open.
    static std::string Others(std::string const& opened);

    Abi const& abi() const noexcept { return *abi_; }
    std::string const& path() const noexcept { return path_; }  // of the file that was opened
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

// "10.14.1" of getInferLibVersion's 101401; TensorRT up to 9 numbered otherwise: "8.6.1" of 8601.
std::string VersionText(int32_t version);

}  // namespace edgeformer::tensorrt
