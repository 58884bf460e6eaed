// Whole calls, as the plugin and the C interface make them: the device is asked, the table chooses, three kernels run.
#include "bi_level_routing_attention/run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/problem.h"
#include "emulation/emulator.h"
#include "expect_contains.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr emulation::Device kTuring{75, 64 * 1024, 40};
constexpr emulation::Device kAmpere{86, 99 * 1024, 84};
constexpr emulation::Device kOrin{87, 163 * 1024, 16};
constexpr emulation::Device kHopper{90, 227 * 1024, 132};

// Tokens per region (t) and topk, alone and with several images. {batch, height, width, num_heads, regions, topk,
// qk_dim, dim}.
constexpr Shape kShapes[] = {
    {1, 16, 16, 1, 16, 16, 32, 32},  // t 1, 16 regions a side, topk 16: of INT8, logits that tie
    {3, 6, 10, 2, 2, 4, 64, 64},     // t 15, all regions
    {2, 8, 6, 3, 2, 2, 96, 96},      // t 12, three heads
    {1, 25, 10, 2, 5, 16, 64, 64},   // t 10 in rows of two, topk 16
    {2, 9, 12, 2, 3, 4, 64, 32},     // t 12, wide queries
    {2, 18, 18, 1, 3, 9, 32, 32},    // t 36, all regions: 324 keys
    {2, 14, 22, 1, 2, 2, 32, 32},    // t 77, two images
#if !defined(__SANITIZE_THREAD__)    // as with the types (harness.h)
    {1, 16, 64, 1, 2, 1, 32, 32},    // t 256 in long rows
#endif
};

#if defined(__SANITIZE_THREAD__)
constexpr emulation::Device kDevices[] = {kOrin};
#else
constexpr emulation::Device kDevices[] = {kTuring, kAmpere, kOrin, kHopper};
#endif

// Buffers of one call, and what the host program would pass.
class Problem {
public:
    Problem(Shape const& shape, Types const& types, uint32_t seed)
        : params(MakeParams(shape, types)),
          qkv(MakeInput(params, Random(seed))),
          input_(EncodeInput(params, qkv)),
          output_(OutputBytes(params)),
          workspace_(WorkspaceBytes(params)) {
        Clear();
        params.qkv = input_.data();
        params.output = output_.data();
        AssignWorkspace(params, workspace_.data());
    }

    void Clear() {
        std::memset(output_.data(), 0xff, output_.size());
        std::memset(workspace_.data(), 0xff, workspace_.size());
    }

    AttentionPlan Plan() const { return PlanAttention(params, CurrentDevice()); }

    void Run(AttentionPlan const& plan, cudaStream_t stream = nullptr) const {
        bi_level_routing_attention::Run(params, plan, stream);
    }
    void Run() const { Run(Plan()); }

    std::vector<unsigned char> const& output() const { return output_; }

    Params params;
    std::vector<double> qkv;

private:
    static size_t OutputBytes(Params const& params) {
        size_t const elements = static_cast<size_t>(params.batch) * params.height * params.width * params.dim;
        return elements * (params.output_type == ElementType::kFloat32 ? 4 : 2);
    }

    std::vector<unsigned char> input_;
    std::vector<unsigned char> output_;
    std::vector<unsigned char> workspace_;
};

class RunTest : public testing::Test {
protected:
    void SetUp() override { cudaGetLastError(); }
    void TearDown() override {
        emulation::SetDevice({});
        emulation::SetSchedule({});
        EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
    }
};

bool SamePlan(AttentionPlan const& a, AttentionPlan const& b) {
    return a.variant == b.variant && a.warps == b.warps && a.heads == b.heads && a.stages == b.stages &&
           a.passes == b.passes && a.parts == b.parts && a.splits == b.splits;
}

class RunOfType : public RunTest, public testing::WithParamInterface<Types> {};
INSTANTIATE_TEST_SUITE_P(Run, RunOfType, testing::ValuesIn(kAllTypes), TestName);

TEST_P(RunOfType, OnEveryDevice) {
    Types const& types = GetParam();
    uint32_t seed = 600;
    for (Shape const& shape : kShapes) {
        Problem problem(shape, types, seed++);
        Reference const reference = Compute(problem.params, problem.qkv);
        std::vector<AttentionPlan> done;
        for (emulation::Device const& device : kDevices) {
            emulation::SetDevice(device);
            AttentionPlan const plan = problem.Plan();
            if (std::any_of(done.begin(), done.end(), [&](auto const& other) { return SamePlan(plan, other); })) {
                continue;
            }
            done.push_back(plan);
            SCOPED_TRACE(Describe(shape, types) + " on sm_" + std::to_string(device.compute_capability));
            EXPECT_EQ(plan.variant == Variant::kPlain,
                      device.compute_capability < 80 || types.input == ElementType::kFloat32);
            problem.Clear();
            problem.Run(plan);
            Outcome outcome = DecodeOutput(problem.params, problem.output());
            outcome.variant = plan.variant;
            CheckOutput(problem.params, outcome, reference);
        }
    }
}

// Launches share nothing but what their params point to: two calls whose kernels alternate do what each does alone.
TEST_F(RunTest, InterleavedCallsGiveTheSameBits) {
    Problem first({1, 14, 14, 2, 7, 16, 64, 64}, kFloat16, 11);
    Problem second({2, 9, 15, 2, 3, 3, 64, 64}, kInt8Float32, 12);
    first.Run();
    second.Run();
    std::vector<unsigned char> const first_alone = first.output();
    std::vector<unsigned char> const second_alone = second.output();
    first.Clear();
    second.Clear();
    EXPECT_EQ(LaunchRegionMean(first.params, nullptr), cudaSuccess);
    EXPECT_EQ(LaunchRegionMean(second.params, nullptr), cudaSuccess);
    EXPECT_EQ(LaunchRouting(second.params, nullptr), cudaSuccess);
    EXPECT_EQ(LaunchRouting(first.params, nullptr), cudaSuccess);
    EXPECT_EQ(LaunchAttention(first.params, first.Plan(), nullptr), cudaSuccess);
    EXPECT_EQ(LaunchAttention(second.params, second.Plan(), nullptr), cudaSuccess);
    EXPECT_EQ(first.output(), first_alone);
    EXPECT_EQ(second.output(), second_alone);
}

// A CUDA graph replays the same launches on buffers that hold the last results.
TEST_F(RunTest, RepeatedCallsGiveTheSameBits) {
    for (Types const& types : {kFloat16, kInt8Float16}) {
        Problem problem({2, 14, 14, 1, 7, 16, 32, 32}, types, 13);
        problem.Run();
        std::vector<unsigned char> const once = problem.output();
        problem.Run();
        EXPECT_EQ(problem.output(), once);
    }
}

// Every kernel must wait for the one before it, also for that of the last call; ThreadSanitizer sees those that do not.
TEST_F(RunTest, ProgrammaticLaunchesGiveTheSameBits) {
    emulation::SetDevice(kHopper);
    for (Shape const& shape : {Shape{1, 8, 8, 2, 4, 16, 64, 64}, Shape{2, 9, 15, 1, 3, 3, 32, 32}}) {
        for (Variant const variant : {Variant::kPlain, Variant::kGather, Variant::kResident}) {
            Problem problem(shape, kFloat16, 14);
            AttentionPlan const plan = PlanAttention(problem.params, CurrentDevice(), variant);
            ASSERT_EQ(plan.variant, variant);
            problem.Run(plan);
            std::vector<unsigned char> const serial = problem.output();
            problem.Clear();
            problem.params.programmatic_launch = true;
            for (int32_t call = 0; call < 2; ++call) {
                problem.Run(plan);
                EXPECT_TRUE(emulation::LastLaunch().shape.programmatic);
            }
            EXPECT_EQ(problem.output(), serial);
        }
    }
}

TEST_F(RunTest, AFailedLaunchIsNamedAndTheRestIsNotLaunched) {
    Problem const problem({1, 6, 6, 1, 3, 2, 32, 32}, kFloat16, 15);
    char const* const kernels[] = {"region mean", "routing", "attention"};
    for (int32_t failing = 0; failing < 3; ++failing) {
        SCOPED_TRACE(kernels[failing]);
        emulation::FailLaunch(failing, cudaErrorLaunchFailure);
        int64_t const launches = emulation::LaunchCount();
        try {
            problem.Run();
            ADD_FAILURE() << "no exception";
        } catch (CudaError const& error) {
            EXPECT_CONTAINS(error.what(), kernels[failing]);
            EXPECT_CONTAINS(error.what(), "cudaErrorLaunchFailure");
        }
        EXPECT_EQ(emulation::LaunchCount(), launches + failing + 1);
    }
}

TEST_F(RunTest, AStreamInErrorIsReportedAndTheNextCallWorks) {
    Problem const problem({1, 6, 6, 1, 3, 2, 32, 32}, kFloat16, 16);
    CUstream_st stream{cudaErrorIllegalAddress};
    EXPECT_THROW(problem.Run(problem.Plan(), &stream), CudaError);
    stream.error = cudaSuccess;
    problem.Run(problem.Plan(), &stream);
    CheckOutput(problem.params, DecodeOutput(problem.params, problem.output()), Compute(problem.params, problem.qkv));
}

TEST_F(RunTest, TheDeviceIsAskedOnce) {
    emulation::SetDevice({89, 99 * 1024, 3});
    Device const device = CurrentDevice();
    EXPECT_EQ(device.compute_capability, 89);
    EXPECT_EQ(device.max_shared_bytes, 99 * 1024);
    EXPECT_EQ(device.multiprocessors, 3);
    emulation::FailCall("cudaDeviceGetAttribute", cudaErrorInvalidValue);
    EXPECT_EQ(CurrentDevice().multiprocessors, 3);
    emulation::SetDevice({89, 99 * 1024, 4});
    EXPECT_THROW(CurrentDevice(), CudaError);  // a failed query is not remembered
    EXPECT_EQ(CurrentDevice().multiprocessors, 4);
    emulation::FailCall("cudaGetDevice", cudaErrorNoDevice);
    EXPECT_THROW(CurrentDevice(), CudaError);
}

TEST_F(RunTest, SharedMemoryIsAskedForOnce) {
    emulation::SetDevice({87, 163 * 1024, 1002});
    Params large = MakeParams({1, 32, 32, 1, 8, 16, 32, 32}, kFloat16);
    Problem big({1, 32, 32, 1, 8, 16, 32, 32}, kFloat16, 2);
    AttentionPlan const plan = PlanAttention(large, CurrentDevice(), Variant::kResident);
    ASSERT_EQ(plan.variant, Variant::kResident);
    ASSERT_GT(plan.shared_bytes, 48 * 1024);
    emulation::FailCall("cudaFuncSetAttribute", cudaErrorInvalidValue);
    EXPECT_THROW(big.Run(plan), CudaError);  // a failed call is not remembered
    big.Run(plan);
    emulation::FailCall("cudaFuncSetAttribute", cudaErrorInvalidValue);
    big.Run(plan);
    EXPECT_EQ(emulation::TakeFailure("cudaFuncSetAttribute"), cudaErrorInvalidValue);  // nobody asked
}

TEST_F(RunTest, ADriverThatIsTooOldIsNamed) {
    EXPECT_EQ(WhyDriverTooOld(), "");
    emulation::SetDriverVersion(0);  // no driver at all is another matter
    EXPECT_EQ(WhyDriverTooOld(), "");
    emulation::SetDriverVersion(13010);
    EXPECT_EQ(WhyDriverTooOld(), "");
    emulation::SetDriverVersion(12040);
    EXPECT_CONTAINS(WhyDriverTooOld(), "built with CUDA 13.0 and the driver supports CUDA up to 12.4");
    emulation::FailCall("cudaGetDevice", cudaErrorNoDevice);
    try {
        CurrentDevice();
        FAIL();
    } catch (CudaError const& error) {
        EXPECT_CONTAINS(error.what(), "CUDA up to 12.4: install a newer driver");
    }
    emulation::SetDriverVersion(emulation::kRuntimeVersion);
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
