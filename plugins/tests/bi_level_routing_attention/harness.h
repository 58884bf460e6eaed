// Runs the kernels on made-up inputs and compares with the reference.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/reference.h"
#include "bi_level_routing_attention/variants.h"
#include "emulation/sanitizers.h"

namespace edgeformer::bi_level_routing_attention {

struct Types {
    char const* name;
    ElementType input;
    ElementType output;

    friend void PrintTo(Types const& types, std::ostream* stream) { *stream << types.name; }
};
inline constexpr Types kFloat32{"FP32", ElementType::kFloat32, ElementType::kFloat32};
inline constexpr Types kFloat16{"FP16", ElementType::kFloat16, ElementType::kFloat16};
inline constexpr Types kBFloat16{"BF16", ElementType::kBFloat16, ElementType::kBFloat16};
inline constexpr Types kInt8Float16{"INT8 to FP16", ElementType::kInt8, ElementType::kFloat16};
inline constexpr Types kInt8Float32{"INT8 to FP32", ElementType::kInt8, ElementType::kFloat32};
#if defined(__SANITIZE_THREAD__)
// It makes everything many times slower and sees accesses to memory, not numbers: one type of each size is enough.
inline constexpr Types kAllTypes[] = {kFloat32, kFloat16, kInt8Float16};
inline constexpr Types kTensorCoreTypes[] = {kFloat16, kInt8Float32};
#else
inline constexpr Types kAllTypes[] = {kFloat32, kFloat16, kBFloat16, kInt8Float16, kInt8Float32};
inline constexpr Types kTensorCoreTypes[] = {kFloat16, kBFloat16, kInt8Float16, kInt8Float32};
#endif

// The first line of a test of nothing but numbers.
#define SKIP_UNDER_THREAD_SANITIZER()                                     \
    if (emulation::kWatchesThreads) {                                     \
        GTEST_SKIP() << "ThreadSanitizer looks at accesses, not numbers"; \
    }                                                                     \
    static_assert(true, "takes the semicolon")

struct Shape {
    int32_t batch, height, width, num_heads, regions, topk, qk_dim, dim;
};

// Params without pointers, with scale = qk_dim^-0.5 and, for INT8, three different steps.
Params MakeParams(Shape const& shape, Types const& types);

// "[2, 9, 15] heads 2 ..." for messages.
std::string Describe(Shape const& shape, Types const& types);

int32_t Channels(Params const& params);

// "Int8ToFp16" for the names of tests with parameters.
std::string TestName(testing::TestParamInfo<Types> const& info);

// Value of one element of qkv: image, row, column, channel.
using Fill = std::function<double(int32_t, int32_t, int32_t, int32_t)>;

// qkv of a problem, rounded to the input type; for INT8 the integers.
std::vector<double> MakeInput(Params const& params, Fill const& fill);

// The bytes that the kernels read.
std::vector<unsigned char> EncodeInput(Params const& params, std::vector<double> const& qkv);

// Normally distributed with this deviation, or for INT8 uniform integers. The same for the same seed.
Fill Random(uint32_t seed, double deviation = 1.);

// LePE parameters of a problem with params.lepe_kernel > 0, normally distributed and rounded to the output type.
LepeValues MakeLepe(Params const& params, uint32_t seed);

struct Outcome {
    std::vector<float> means;
    std::vector<int32_t> routing;
    std::vector<double> output;
    std::vector<unsigned char> output_bytes;
    Variant variant = Variant::kPlain;
};

// An outcome without means and routing, of the variant that the table gives.
Outcome DecodeOutput(Params const& params, std::vector<unsigned char> const& bytes);

// The three launches, on buffers of the exact sizes, in which everything is NaN before. Without a plan: the one that
// the table gives on a GPU like Orin.
Outcome RunKernels(Params params, std::vector<double> const& qkv, LepeValues const& lepe = {},
                   std::optional<AttentionPlan> const& plan = {});

// The attention kernel alone, on a routing made elsewhere; the outcome has no means.
Outcome RunAttention(Params params, std::vector<double> const& qkv, std::vector<int32_t> const& routing,
                     LepeValues const& lepe, AttentionPlan const& plan);

// Checks routing for equality, means and output within the rounding of its type and of the kernels' arithmetic.
void CheckAgainstReference(Params const& params, std::vector<double> const& qkv, LepeValues const& lepe = {},
                           std::optional<AttentionPlan> const& plan = {});
void CheckOutput(Params const& params, Outcome const& outcome, Reference const& reference);

}  // namespace edgeformer::bi_level_routing_attention
