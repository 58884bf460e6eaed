// ONNX Runtime's C interface with RAII and exceptions.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "dynamic_library.h"

namespace edgeformer {

// The library and its function table. It stays open for the life of the process: its threads may outlive a session.
struct OnnxRuntime {
    OrtApi const* api = nullptr;
    OrtEnv* environment = nullptr;
    std::string path;
    std::string version;

    // Throws std::runtime_error with ONNX Runtime's words where the status is an error; frees it.
    void Check(OrtStatus* status) const;
};

// Opens ONNX Runtime once for each library; threads may call it at once.
// Throws Fault EF605.
OnnxRuntime const& OpenOnnxRuntime(std::string const& named);

// A handle that ONNX Runtime's API releases.
template <class Handle>
class OrtHandle {
public:
    using Release = void(ORT_API_CALL*)(Handle*);
    OrtHandle(Handle* handle, Release release) : handle_(handle, release) {}
    Handle* get() const { return handle_.get(); }

private:
    std::unique_ptr<Handle, Release> handle_;
};

}  // namespace edgeformer
