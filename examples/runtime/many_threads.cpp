// many_threads BUNDLE [THREADS [CALLS [CONTEXTS]]]: threads that share one model, and a check that none disturbs
// another.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <edgeformer/model.hpp>
#include <thread>
#include <vector>

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s BUNDLE [THREADS [CALLS [CONTEXTS]]]\n", argv[0]);
        return 2;
    }
    int const threads = argc > 2 ? std::atoi(argv[2]) : 8;
    int const calls = argc > 3 ? std::atoi(argv[3]) : 10;
    edgeformer::LoadOptions options;
    options.contexts = argc > 4 ? std::atoi(argv[4]) : 2;  // so many run at once; the others wait for one
    options.threads = 1;
    auto model = edgeformer::Model::Load(argv[1], options);
    if (!model) {
        std::fprintf(stderr, "%s\n", model.error().c_str());
        return 1;
    }
    edgeformer::TensorInfo const input = model->Inputs()[0];
    edgeformer::Shape shape = input.shape;
    size_t elements = 1;
    for (int64_t& size : shape) {
        size = size < 0 ? 1 : size;
        elements *= static_cast<size_t>(size);
    }
    if (input.type != EDGEFORMER_FLOAT32) {
        std::fprintf(stderr, "this example feeds float32\n");
        return 1;
    }
    // Each thread has an input of its own, and must always get the result that it got when it was alone.
    std::vector<std::vector<float>> inputs;
    std::vector<std::vector<std::byte>> expected;
    for (int thread = 0; thread < threads; ++thread) {
        inputs.emplace_back(elements, 0.1F * static_cast<float>(thread));
        auto alone = model->Run({edgeformer::TensorOf(inputs.back(), shape)});
        if (!alone) {
            std::fprintf(stderr, "%s\n", alone.error().c_str());
            return 1;
        }
        expected.push_back((*alone)[0].bytes);
    }
    std::atomic<int> wrong{0};
    std::vector<std::thread> workers;
    for (int thread = 0; thread < threads; ++thread) {
        workers.emplace_back([&, thread] {
            auto const index = static_cast<size_t>(thread);
            for (int call = 0; call < calls; ++call) {
                auto const result = model->Run({edgeformer::TensorOf(inputs[index], shape)});
                wrong += !result || (*result)[0].bytes != expected[index];
            }
        });
    }
    for (std::thread& worker : workers) {
        worker.join();
    }
    std::printf("%d threads, %d calls each, %d contexts: %d wrong results\n", threads, calls, options.contexts,
                wrong.load());
    return wrong == 0 ? 0 : 1;
}
