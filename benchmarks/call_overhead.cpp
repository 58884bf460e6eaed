// What a call through the runtime costs beside the same call of ONNX Runtime's own C interface: the same graph, one
// thread, batch 1, in turns. Prints one JSON object; benchmarks/bench_call_overhead.py runs it.
//
//   call_overhead BUNDLE LIBONNXRUNTIME [ROUNDS [CALLS [bare-first]]]
//
// Two sessions of one graph are not equally fast: which of them is made first decides where its weights lie. With
// bare-first the bare one is, else the runtime's; the mean over both orders is what the call costs.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <edgeformer/model.hpp>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void Fail(std::string const& message) {
    std::fprintf(stderr, "call_overhead: %s\n", message.c_str());
    std::exit(1);
}

// ONNX Runtime without anything around it, with the options that the runtime sets.
class Bare {
public:
    Bare(std::string const& graph, char const* library, std::vector<int64_t> shape) : shape_(std::move(shape)) {
        void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr) {
            Fail(dlerror());
        }
        auto const base = reinterpret_cast<OrtApiBase const* (*)()>(dlsym(handle, "OrtGetApiBase"));
        api_ = base()->GetApi(ORT_API_VERSION);
        OrtEnv* environment = nullptr;
        OrtSessionOptions* options = nullptr;
        Check(api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "bare", &environment));
        Check(api_->CreateSessionOptions(&options));
        Check(api_->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL));
        Check(api_->DisableMemPattern(options));
        Check(api_->AddSessionConfigEntry(options, "session.disable_quant_qdq", "1"));
        Check(api_->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
        Check(api_->SetIntraOpNumThreads(options, 1));
        Check(api_->SetInterOpNumThreads(options, 1));
        std::ifstream file(graph, std::ios::binary);
        std::vector<char> const bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        Check(api_->CreateSessionFromArray(environment, bytes.data(), bytes.size(), options, &session_));
        Check(api_->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory_));
        Check(api_->CreateRunOptions(&run_options_));
        Check(api_->RunOptionsSetRunLogSeverityLevel(run_options_, ORT_LOGGING_LEVEL_FATAL));
    }

    void Run(std::vector<float>& input, char const* input_name, std::vector<float>& output, char const* output_name) {
        int64_t const output_shape[] = {1, static_cast<int64_t>(output.size())};
        OrtValue* fed = nullptr;
        OrtValue* result = nullptr;
        Check(api_->CreateTensorWithDataAsOrtValue(memory_, input.data(), input.size() * sizeof(float), shape_.data(),
                                                   shape_.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &fed));
        Check(api_->CreateTensorWithDataAsOrtValue(memory_, output.data(), output.size() * sizeof(float), output_shape,
                                                   2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &result));
        OrtValue const* const feeds[] = {fed};
        Check(api_->Run(session_, run_options_, &input_name, feeds, 1, &output_name, 1, &result));
        api_->ReleaseValue(fed);
        api_->ReleaseValue(result);
    }

private:
    void Check(OrtStatus* status) {
        if (status != nullptr) {
            Fail(api_->GetErrorMessage(status));
        }
    }

    OrtApi const* api_ = nullptr;
    OrtSession* session_ = nullptr;
    OrtMemoryInfo* memory_ = nullptr;
    OrtRunOptions* run_options_ = nullptr;
    std::vector<int64_t> shape_;
};

template <class Call>
double Microseconds(int calls, Call&& call) {
    auto const start = Clock::now();
    for (int index = 0; index < calls; ++index) {
        call();
    }
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count() / calls;
}

double Median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        Fail("usage: call_overhead BUNDLE LIBONNXRUNTIME [ROUNDS [CALLS [bare-first]]]");
    }
    int const rounds = argc > 3 ? std::atoi(argv[3]) : 200;
    int const calls = argc > 4 ? std::atoi(argv[4]) : 5;
    bool const bare_first = argc > 5 && std::string(argv[5]) == "bare-first";
    edgeformer::LoadOptions options;
    options.backend = EDGEFORMER_ONNX_RUNTIME;
    options.threads = 1;
    options.onnxruntime_library = argv[2];
    auto model = edgeformer::Model::Load(argv[1], options);
    if (!model) {
        Fail(model.error());
    }
    std::string const file = model->Describe().file;
    edgeformer::TensorInfo const input_info = model->Inputs()[0];
    edgeformer::TensorInfo const output_info = model->Outputs()[0];
    edgeformer::Shape shape = input_info.shape;
    size_t elements = 1;
    for (int64_t& size : shape) {
        size = size < 0 ? 1 : size;
        elements *= static_cast<size_t>(size);
    }
    std::vector<float> input(elements, 0.5F);
    std::vector<float> output(static_cast<size_t>(output_info.shape[1]));
    std::vector<float> bare_output(output.size());
    std::vector<EdgeformerTensor> const inputs{edgeformer::TensorOf(input, shape)};
    std::vector<EdgeformerTensor> const outputs{edgeformer::TensorOf(output, {1, static_cast<int64_t>(output.size())})};
    std::optional<Bare> bare;
    if (bare_first) {
        model = edgeformer::Status();
        bare.emplace(file, argv[2], shape);
        model = edgeformer::Model::Load(argv[1], options);
        if (!model) {
            Fail(model.error());
        }
    } else {
        bare.emplace(file, argv[2], shape);
    }
    auto const ours = [&] {
        edgeformer::Status const status = model->Run(inputs, outputs);
        if (!status) {
            Fail(status.error());
        }
    };
    auto const theirs = [&] { bare->Run(input, input_info.name.c_str(), bare_output, output_info.name.c_str()); };
    Microseconds(20, ours);
    Microseconds(20, theirs);
    if (output != bare_output) {
        Fail("the results differ");
    }
    std::vector<double> differences;
    std::vector<double> bare_times;
    for (int round = 0; round < rounds; ++round) {
        // A B B A: what drifts in a round falls on both.
        double const first = Microseconds(calls, ours);
        double const second = Microseconds(2 * calls, theirs);
        double const third = Microseconds(calls, ours);
        differences.push_back((first + third) / 2 - second);
        bare_times.push_back(second);
    }
    std::printf("{\"bare_us\": %.3f, \"overhead_us\": %.3f, \"rounds\": %d, \"calls\": %d}\n", Median(bare_times),
                Median(differences), rounds, calls);
    return 0;
}
