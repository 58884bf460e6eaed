// Many threads on few contexts, as the core's pool hands them out.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "pool.h"
#include "tensorrt/doubles/bench.h"

namespace edgeformer::tensorrt {
namespace {

class TensorRtThreads : public testing::TestWithParam<std::tuple<Flavour, int, int>> {};

INSTANTIATE_TEST_SUITE_P(All, TensorRtThreads,
                         testing::Combine(testing::ValuesIn(AllFlavours()), testing::Values(1, 2, 4),
                                          testing::Values(0, 2)),
                         [](auto const& info) {
                             return std::string(NameOf(std::get<0>(info.param))) + "Pool" +
                                    std::to_string(std::get<1>(info.param)) + "Graphs" +
                                    std::to_string(std::get<2>(info.param));
                         });

TEST_P(TensorRtThreads, EightOfThemGetRightAnswersAThousandTimes) {
    auto const [flavour, contexts, graphs] = GetParam();
    Bench bench(flavour);
    bench.request.cuda_graphs = graphs;
    BackendModel& model = bench.Load();
    std::vector<std::unique_ptr<BackendContext>> made;
    for (int i = 0; i < contexts; ++i) {
        made.push_back(model.CreateContext());
    }
    ContextPool pool(std::move(made));
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 8; ++thread) {
        threads.emplace_back([&, thread] {
            HostTensors tensors(1 + thread % 3);
            for (int call = 0; call < 1000; ++call) {
                float const seed = static_cast<float>(thread * 10 + call % 7);
                tensors.Fill(seed);
                auto context = pool.Acquire(-1);
                context->Run(tensors.inputs, tensors.outputs);
                pool.Return(std::move(context));
                wrong += tensors.IsRight(seed) ? 0 : 1;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(bench.cuda->counts.synchronizations, 8000);
    // Activations, and a buffer for each of the two tensors.
    EXPECT_LE(bench.cuda->counts.device_allocations, 3 * contexts);
    for (int i = 0; i < contexts; ++i) {
        pool.Acquire(0).reset();
    }
}

}  // namespace
}  // namespace edgeformer::tensorrt
