// A test double of ONNX Runtime: its C interface over a "model" that doubles its input. Sanitizers see into it, which
// they cannot into the real library, and it counts what it is asked for.
//
// The bytes of a graph choose what it is: "double" has input [batch, 4] and output [batch, 4]; "unknown" has an output
// whose size only the run tells; "string" has an output of a type that is not taken; "classifier" has input [batch, 3,
// 2, 2] and output [batch, 4]; everything else cannot be loaded.
#include "onnxruntime_double.h"

#include <onnxruntime_c_api.h>

#include <atomic>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

struct OrtStatus {
    std::string message;
};
struct OrtEnv {};
struct OrtMemoryInfo {};
struct OrtRunOptions {};
struct OrtSessionOptions {};
struct OrtTensorTypeAndShapeInfo {
    ONNXTensorElementDataType type;
    std::vector<int64_t> shape;
    std::vector<char const*> symbols;
};
struct OrtTypeInfo {
    OrtTensorTypeAndShapeInfo tensor;
};
struct OrtValue {
    std::vector<int64_t> shape;
    float* data;
    std::vector<float> own;
};
struct OrtSession {
    std::string graph;
};

namespace {

std::atomic<int> live{0};
std::atomic<int> runs{0};
std::atomic<int> running{0};
std::atomic<int> most_running{0};

OrtStatus* Error(char const* message) {
    ++live;
    return new OrtStatus{message};
}

template <class Handle>
void Delete(Handle* handle) {
    if (handle != nullptr) {
        --live;
        delete handle;
    }
}

template <class Handle>
OrtStatus* Make(Handle** made, Handle value = {}) {
    ++live;
    *made = new Handle(std::move(value));
    return nullptr;
}

OrtStatus* Copy(char const* text, char** name) {
    ++live;
    *name = new char[std::strlen(text) + 1];
    std::strcpy(*name, text);
    return nullptr;
}

OrtStatus* TypeOf(std::string const& graph, bool is_input, OrtTypeInfo** info) {
    OrtTypeInfo type;
    bool const is_string = !is_input && graph == "string";
    type.tensor.type = is_string ? ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    type.tensor.shape = {-1, 4};
    if (is_input && graph == "classifier") {
        type.tensor.shape = {-1, 3, 2, 2};
        type.tensor.symbols = {"batch", "", "", ""};
        return Make(info, std::move(type));
    }
    type.tensor.symbols = {!is_input && graph == "unknown" ? "" : "batch", ""};
    return Make(info, std::move(type));
}

// Every function of the interface that the runtime calls, with the types that the header gives it.
OrtStatus* ORT_API_CALL CreateEnv(OrtLoggingFunction, void*, OrtLoggingLevel, char const*, OrtEnv** made) noexcept {
    *made = new OrtEnv;  // lives as long as the process, as the runtime has it
    return nullptr;
}

OrtStatus* ORT_API_CALL CreateSession(OrtEnv const*, void const* data, size_t size, OrtSessionOptions const*,
                                      OrtSession** session) noexcept {
    std::string const graph(static_cast<char const*>(data), size);
    if (graph != "double" && graph != "unknown" && graph != "string" && graph != "classifier") {
        return Error("Protobuf parsing failed.");
    }
    return Make(session, {graph});
}

OrtStatus* ORT_API_CALL One(OrtSession const*, size_t* count) noexcept {
    *count = 1;
    return nullptr;
}

OrtAllocator default_allocator{};

// The red, the green and the blue of the first pixel, and nothing.
void Classify(OrtValue const& input, OrtValue& result) {
    for (int64_t image = 0; image < input.shape[0]; ++image) {
        for (int64_t channel = 0; channel < 4; ++channel) {
            result.data[4 * image + channel] = channel < 3 ? input.data[12 * image + 4 * channel] : 0;
        }
    }
}

OrtStatus* ORT_API_CALL Run(OrtSession* session, OrtRunOptions const*, char const* const*,
                            OrtValue const* const* inputs, size_t, char const* const*, size_t outputs,
                            OrtValue** results) noexcept {
    int const now = ++running;
    for (int most = most_running; now > most && !most_running.compare_exchange_weak(most, now);) {
    }
    ++runs;
    OrtValue const& input = *inputs[0];
    auto const count = static_cast<size_t>(input.shape[0] * input.shape[1]);
    OrtStatus* status = nullptr;
    if (count > 0 && input.data[0] == kFailingValue) {
        status = Error("Non-zero status code returned while running Mul node.");
    } else if (session->graph == "classifier") {
        Classify(input, *results[0]);
    } else if (outputs == 1) {
        if (results[0] == nullptr) {
            Make(&results[0], {input.shape, nullptr, std::vector<float>(count)});
            results[0]->data = results[0]->own.data();
        }
        for (size_t index = 0; index < count; ++index) {
            results[0]->data[index] = 2 * input.data[index];
        }
    }
    --running;
    return status;
}

void AddSession(OrtApi& api) {
    api.CreateEnvWithCustomLogger = CreateEnv;
    api.DisableTelemetryEvents = [](OrtEnv const*) noexcept -> OrtStatusPtr { return nullptr; };
    api.CreateSessionOptions = [](OrtSessionOptions** made) noexcept -> OrtStatusPtr { return Make(made); };
    api.ReleaseSessionOptions = [](OrtSessionOptions* options) noexcept { Delete(options); };
    api.SetSessionGraphOptimizationLevel = [](OrtSessionOptions*, GraphOptimizationLevel) noexcept -> OrtStatusPtr {
        return nullptr;
    };
    api.SetSessionLogSeverityLevel = [](OrtSessionOptions*, int) noexcept -> OrtStatusPtr { return nullptr; };
    api.DisableMemPattern = [](OrtSessionOptions*) noexcept -> OrtStatusPtr { return nullptr; };
    api.AddSessionConfigEntry = [](OrtSessionOptions*, char const*, char const*) noexcept -> OrtStatusPtr {
        return nullptr;
    };
    api.SetIntraOpNumThreads = [](OrtSessionOptions*, int) noexcept -> OrtStatusPtr { return nullptr; };
    api.SetInterOpNumThreads = [](OrtSessionOptions*, int) noexcept -> OrtStatusPtr { return nullptr; };
    api.CreateSessionFromArray = CreateSession;
    api.ReleaseSession = [](OrtSession* session) noexcept { Delete(session); };
    api.SessionGetInputCount = One;
    api.SessionGetOutputCount = One;
    api.SessionGetInputName = [](OrtSession const*, size_t, OrtAllocator*, char** name) noexcept -> OrtStatusPtr {
        return Copy("input", name);
    };
    api.SessionGetOutputName = [](OrtSession const*, size_t, OrtAllocator*, char** name) noexcept -> OrtStatusPtr {
        return Copy("logits", name);
    };
    api.SessionGetInputTypeInfo = [](OrtSession const* session, size_t, OrtTypeInfo** info) noexcept -> OrtStatusPtr {
        return TypeOf(session->graph, true, info);
    };
    api.SessionGetOutputTypeInfo = [](OrtSession const* session, size_t, OrtTypeInfo** info) noexcept -> OrtStatusPtr {
        return TypeOf(session->graph, false, info);
    };
}

void AddTypes(OrtApi& api) {
    api.ReleaseTypeInfo = [](OrtTypeInfo* info) noexcept { Delete(info); };
    api.CastTypeInfoToTensorInfo = [](OrtTypeInfo const* type,
                                      OrtTensorTypeAndShapeInfo const** info) noexcept -> OrtStatusPtr {
        *info = &type->tensor;
        return nullptr;
    };
    api.GetTensorElementType = [](OrtTensorTypeAndShapeInfo const* info,
                                  ONNXTensorElementDataType* type) noexcept -> OrtStatusPtr {
        *type = info->type;
        return nullptr;
    };
    api.GetDimensionsCount = [](OrtTensorTypeAndShapeInfo const* info, size_t* rank) noexcept -> OrtStatusPtr {
        *rank = info->shape.size();
        return nullptr;
    };
    api.GetDimensions = [](OrtTensorTypeAndShapeInfo const* info, int64_t* shape,
                           size_t rank) noexcept -> OrtStatusPtr {
        std::memcpy(shape, info->shape.data(), rank * sizeof(int64_t));
        return nullptr;
    };
    api.GetSymbolicDimensions = [](OrtTensorTypeAndShapeInfo const* info, char const** symbols,
                                   size_t rank) noexcept -> OrtStatusPtr {
        std::memcpy(symbols, info->symbols.data(), rank * sizeof(char const*));
        return nullptr;
    };
    api.GetTensorTypeAndShape = [](OrtValue const* value, OrtTensorTypeAndShapeInfo** made) noexcept -> OrtStatusPtr {
        return Make(made, {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, value->shape, {}});
    };
    api.ReleaseTensorTypeAndShapeInfo = [](OrtTensorTypeAndShapeInfo* info) noexcept { Delete(info); };
}

OrtApi MakeApi() {
    OrtApi api{};
    AddSession(api);
    AddTypes(api);
    api.GetErrorMessage = [](OrtStatus const* status) noexcept { return status->message.c_str(); };
    api.ReleaseStatus = [](OrtStatus* status) noexcept { Delete(status); };
    api.GetAllocatorWithDefaultOptions = [](OrtAllocator** allocator) noexcept -> OrtStatusPtr {
        *allocator = &default_allocator;
        return nullptr;
    };
    api.AllocatorFree = [](OrtAllocator*, void* memory) noexcept -> OrtStatusPtr {
        --live;
        delete[] static_cast<char*>(memory);
        return nullptr;
    };
    api.CreateCpuMemoryInfo = [](OrtAllocatorType, OrtMemType, OrtMemoryInfo** made) noexcept -> OrtStatusPtr {
        return Make(made);
    };
    api.ReleaseMemoryInfo = [](OrtMemoryInfo* info) noexcept { Delete(info); };
    api.CreateTensorWithDataAsOrtValue = [](OrtMemoryInfo const*, void* data, size_t, int64_t const* shape, size_t rank,
                                            ONNXTensorElementDataType, OrtValue** made) noexcept -> OrtStatusPtr {
        return Make(made, {std::vector<int64_t>(shape, shape + rank), static_cast<float*>(data), {}});
    };
    api.ReleaseValue = [](OrtValue* value) noexcept { Delete(value); };
    api.GetTensorMutableData = [](OrtValue* value, void** data) noexcept -> OrtStatusPtr {
        *data = value->data;
        return nullptr;
    };
    api.CreateRunOptions = [](OrtRunOptions** made) noexcept -> OrtStatusPtr { return Make(made); };
    api.ReleaseRunOptions = [](OrtRunOptions* options) noexcept { Delete(options); };
    api.RunOptionsSetRunLogSeverityLevel = [](OrtRunOptions*, int) noexcept -> OrtStatusPtr { return nullptr; };
    api.Run = Run;
    return api;
}

OrtApi const* ORT_API_CALL GetApi(uint32_t version) noexcept {
    static OrtApi const api = MakeApi();
    constexpr uint32_t kNewest = 20;  // older than the header: the runtime has to step down
    return version <= kNewest ? &api : nullptr;
}

char const* ORT_API_CALL GetVersionString() noexcept { return "1.99.0-double"; }

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtApiBase const* OrtGetApiBase() noexcept {
    static OrtApiBase const base = {GetApi, GetVersionString};
    return &base;
}

extern "C" __attribute__((visibility("default"))) DoubleCounts CountsOfDouble() {
    return {live, runs, most_running.exchange(0)};
}
