#include "onnxruntime/api.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <stdexcept>

#include "fault.h"

namespace edgeformer {
namespace {

// The oldest version with every function that is used here.
constexpr uint32_t kOldestApi = 17;

OrtApi const* NewestCommonApi(OrtApiBase const& base) {
    // An older library prints a line for each version that it does not have.
    for (uint32_t version = ORT_API_VERSION; version >= kOldestApi; --version) {
        if (OrtApi const* api = base.GetApi(version)) {
            return api;
        }
    }
    return nullptr;
}

// What is wrong with a graph is thrown; ONNX Runtime need not print it as well.
void ORT_API_CALL Silent(void*, OrtLoggingLevel, char const*, char const*, char const*, char const*) {}

OnnxRuntime Open(std::string const& named) {
    // It reads the variable as it is loaded, and reports to its makers without it.
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    std::string problem;
    DynamicLibrary library =
        FindLibrary(named, "EDGEFORMER_ONNXRUNTIME_LIBRARY", {"libonnxruntime.so.1", "libonnxruntime.so"}, &problem);
    if (!library) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF605",
                    Text("running an ONNX file needs ONNX Runtime: ", problem, " (`pip install onnxruntime` has it)"));
    }
    using GetApiBase = OrtApiBase const*(ORT_API_CALL*)();
    auto const get_base = reinterpret_cast<GetApiBase>(library.Symbol("OrtGetApiBase"));
    if (get_base == nullptr) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF605",
                    Text(named.empty() ? "the library that was found" : named,
                         " is not ONNX Runtime: it has no OrtGetApiBase"));
    }
    OnnxRuntime runtime;
    OrtApiBase const& base = *get_base();
    runtime.path = DynamicLibrary::PathOf(reinterpret_cast<void const*>(get_base));
    runtime.version = base.GetVersionString();
    runtime.api = NewestCommonApi(base);
    if (runtime.api == nullptr) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF605",
                    Text(runtime.path, " is ONNX Runtime ", runtime.version, ", and 1.", kOldestApi,
                         " or newer is needed: install a newer one"));
    }
    runtime.Check(runtime.api->CreateEnvWithCustomLogger(Silent, nullptr, ORT_LOGGING_LEVEL_FATAL, "edgeformer",
                                                         &runtime.environment));
    runtime.Check(runtime.api->DisableTelemetryEvents(runtime.environment));
    library.Keep();
    return runtime;
}

}  // namespace

void OnnxRuntime::Check(OrtStatus* status) const {
    if (status != nullptr) {
        std::string const message = api->GetErrorMessage(status);
        api->ReleaseStatus(status);
        throw std::runtime_error(message);
    }
}

OnnxRuntime const& OpenOnnxRuntime(std::string const& named) {
    static std::mutex mutex;
    // Never destroyed: sessions in other static objects may end later.
    static auto& opened = *new std::map<std::string, OnnxRuntime>;
    std::lock_guard<std::mutex> const lock(mutex);
    auto const found = opened.find(named);
    return found != opened.end() ? found->second : opened.emplace(named, Open(named)).first->second;
}

}  // namespace edgeformer
