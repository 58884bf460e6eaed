#include "bi_level_routing_attention/harness.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <sstream>

#include "bi_level_routing_attention/problem.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr Device kEmulatedDevice{87, 163 * 1024, 16};

size_t SizeOf(ElementType type) {
    switch (type) {
        case ElementType::kFloat32: return 4;
        case ElementType::kFloat16: return 2;
        case ElementType::kBFloat16: return 2;
        case ElementType::kInt8: return 1;
    }
    return 0;
}

template <class T>
void Put(unsigned char* bytes, T value) {
    std::memcpy(bytes, &value, sizeof(value));
}

template <class T>
T Get(unsigned char const* bytes) {
    T value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
}

void Encode(ElementType type, double value, unsigned char* bytes) {
    switch (type) {
        case ElementType::kFloat32: Put(bytes, static_cast<float>(value)); break;
        case ElementType::kFloat16: Put(bytes, __float2half_rn(static_cast<float>(value))); break;
        case ElementType::kBFloat16: Put(bytes, __float2bfloat16_rn(static_cast<float>(value))); break;
        case ElementType::kInt8: Put(bytes, static_cast<int8_t>(value)); break;
    }
}

double Decode(ElementType type, unsigned char const* bytes) {
    switch (type) {
        case ElementType::kFloat32: return Get<float>(bytes);
        case ElementType::kFloat16: return __half2float(Get<__half>(bytes));
        case ElementType::kBFloat16: return __bfloat162float(Get<__nv_bfloat16>(bytes));
        case ElementType::kInt8: return Get<int8_t>(bytes);
    }
    return 0.;
}

std::vector<unsigned char> Encoded(ElementType type, std::vector<double> const& values) {
    std::vector<unsigned char> bytes(values.size() * SizeOf(type));
    for (size_t i = 0; i < values.size(); ++i) {
        Encode(type, values[i], bytes.data() + i * SizeOf(type));
    }
    return bytes;
}

std::vector<double> Decoded(ElementType type, std::vector<unsigned char> const& bytes) {
    std::vector<double> values(bytes.size() / SizeOf(type));
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = Decode(type, bytes.data() + i * SizeOf(type));
    }
    return values;
}

// Half the distance between 1 and the next number of the type, and half its smallest positive number.
double UnitRoundoff(ElementType type) {
    switch (type) {
        case ElementType::kFloat16: return std::ldexp(1., -11);
        case ElementType::kBFloat16: return std::ldexp(1., -8);
        default: return std::ldexp(1., -24);
    }
}
double Underflow(ElementType type) { return type == ElementType::kFloat16 ? std::ldexp(1., -25) : 0.; }

double LargestFinite(std::vector<double> const& numbers) {
    double largest = 0.;
    for (double const number : numbers) {
        largest = std::isfinite(number) ? std::fmax(largest, std::fabs(number)) : largest;
    }
    return largest;
}

// A mean is off by the roundings of its sum, which are relative to the summands; sums of integers are exact.
void CheckMeans(Params const& params, std::vector<float> const& means, std::vector<double> const& expected) {
    double const rounding = params.input_type == ElementType::kInt8 ? 0. : 1e-6 * (LargestFinite(expected) + 1.);
    EXPECT_EQ(means.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
        double const tolerance = std::isinf(expected[i]) ? 0. : rounding;
        bool const same = std::isnan(expected[i])
                              ? std::isnan(means[i])
                              : means[i] == expected[i] || std::fabs(means[i] - expected[i]) <= tolerance;
        EXPECT_TRUE(same);
    }
}

}  // namespace

Params MakeParams(Shape const& shape, Types const& types) {
    Params params;
    params.input_type = types.input;
    params.output_type = types.output;
    params.batch = shape.batch;
    params.height = shape.height;
    params.width = shape.width;
    params.qk_dim = shape.qk_dim;
    params.dim = shape.dim;
    params.num_heads = shape.num_heads;
    params.regions = shape.regions;
    params.topk = shape.topk;
    params.scale = 1.F / std::sqrt(static_cast<float>(shape.qk_dim));
    if (types.input == ElementType::kInt8) {
        params.q_scale = 0.02F;
        params.k_scale = 0.03F;
        params.v_scale = 0.01F;
    }
    return params;
}

std::string Describe(Shape const& s, Types const& types) {
    std::ostringstream text;
    text << types.name << " [" << s.batch << ", " << s.height << ", " << s.width << "] heads " << s.num_heads
         << " regions " << s.regions << " topk " << s.topk << " qk_dim " << s.qk_dim << " dim " << s.dim;
    return text.str();
}

std::string TestName(testing::TestParamInfo<Types> const& info) {
    std::string name;
    bool starts_word = true;
    for (char const* c = info.param.name; *c != '\0'; ++c) {
        if (*c != ' ') {
            name += static_cast<char>(starts_word ? std::toupper(*c) : std::tolower(*c));
        }
        starts_word = *c == ' ';
    }
    return name;
}

int32_t Channels(Params const& params) { return 2 * params.qk_dim + params.dim; }

std::vector<double> MakeInput(Params const& params, Fill const& fill) {
    std::vector<double> values;
    for (int32_t image = 0; image < params.batch; ++image) {
        for (int32_t row = 0; row < params.height; ++row) {
            for (int32_t column = 0; column < params.width; ++column) {
                for (int32_t channel = 0; channel < Channels(params); ++channel) {
                    double value = fill(image, row, column, channel);
                    if (params.input_type == ElementType::kInt8) {
                        value = std::clamp(std::nearbyint(value * 50.), -128., 127.);
                    }
                    values.push_back(value);
                }
            }
        }
    }
    return Decoded(params.input_type, Encoded(params.input_type, values));
}

Fill Random(uint32_t seed, double deviation) {
    auto generator = std::make_shared<std::mt19937>(seed);
    return [generator, deviation](int32_t, int32_t, int32_t, int32_t) {
        return std::normal_distribution<double>(0., deviation)(*generator);
    };
}

LepeValues MakeLepe(Params const& params, uint32_t seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> distribution;
    LepeValues lepe;
    lepe.weight.resize(static_cast<size_t>(params.lepe_kernel) * params.lepe_kernel * params.dim);
    lepe.bias.resize(params.dim);
    for (std::vector<double>* values : {&lepe.weight, &lepe.bias}) {
        std::generate(values->begin(), values->end(), [&] { return distribution(generator); });
        *values = Decoded(params.output_type, Encoded(params.output_type, *values));
    }
    return lepe;
}

std::vector<unsigned char> EncodeInput(Params const& params, std::vector<double> const& qkv) {
    return Encoded(params.input_type, qkv);
}

Outcome DecodeOutput(Params const& params, std::vector<unsigned char> const& bytes) {
    return {{}, {}, Decoded(params.output_type, bytes), bytes, PlanAttention(params, kEmulatedDevice).variant};
}

Outcome RunKernels(Params params, std::vector<double> const& qkv, LepeValues const& lepe,
                   std::optional<AttentionPlan> const& plan) {
    std::vector<unsigned char> const input = Encoded(params.input_type, qkv);
    size_t const regions = static_cast<size_t>(params.regions) * params.regions;
    std::vector<unsigned char> workspace(WorkspaceBytes(params), 0xff);
    params.qkv = input.data();
    AssignWorkspace(params, workspace.data());
    EXPECT_EQ(LaunchRegionMean(params, nullptr), cudaSuccess);
    EXPECT_EQ(LaunchRouting(params, nullptr), cudaSuccess);
    std::vector<int32_t> const routing(params.routing, params.routing + params.batch * regions * params.topk);
    Outcome outcome = RunAttention(params, qkv, routing, lepe, plan ? *plan : PlanAttention(params, kEmulatedDevice));
    outcome.means.assign(params.means, params.means + params.batch * regions * 2 * params.qk_dim);
    return outcome;
}

Outcome RunAttention(Params params, std::vector<double> const& qkv, std::vector<int32_t> const& routing,
                     LepeValues const& lepe, AttentionPlan const& plan) {
    std::vector<unsigned char> const input = Encoded(params.input_type, qkv);
    std::vector<unsigned char> const lepe_weight = Encoded(params.output_type, lepe.weight);
    std::vector<unsigned char> const lepe_bias = Encoded(params.output_type, lepe.bias);
    size_t const pixels = static_cast<size_t>(params.batch) * params.height * params.width;
    Outcome outcome;
    outcome.variant = plan.variant;
    outcome.routing = routing;
    outcome.output_bytes.assign(pixels * params.dim * SizeOf(params.output_type), 0xff);
    params.qkv = input.data();
    params.output = outcome.output_bytes.data();
    params.routing = outcome.routing.data();
    params.lepe_weight = lepe_weight.data();
    params.lepe_bias = lepe_bias.data();
    EXPECT_EQ(LaunchAttention(params, plan, nullptr), cudaSuccess);
    outcome.output = Decoded(params.output_type, outcome.output_bytes);
    return outcome;
}

namespace {

// The kernels for tensor cores round the weights relative to the largest, to FP16, or to BF16 with a BF16 input, and
// divide by the sum of the rounded ones: that moves the result by at most that error of the distance between values.
// The errors of many weights cancel, which leaves a smaller part of the largest output.
double WeightTolerance(Params const& params, Reference const& reference) {
    bool const bfloat16 = params.input_type == ElementType::kBFloat16;
    double const unit = UnitRoundoff(bfloat16 ? ElementType::kBFloat16 : ElementType::kFloat16);
    double const underflow = bfloat16 ? 0. : Underflow(ElementType::kFloat16);
    double const keys =
        static_cast<double>(params.topk) * params.height * params.width / params.regions / params.regions;
    double const bound = 2. * reference.largest_value * (unit + keys * underflow);
    double const usual = (bfloat16 ? 3.2e-3 : 4e-4) * LargestFinite(reference.output);
    return std::fmin(bound, usual);
}

}  // namespace

// FP32 rounding: a logit is off by a few roundings of its terms, and so are the weights, relatively.
void CheckOutput(Params const& params, Outcome const& outcome, Reference const& reference) {
    double const unit = UnitRoundoff(params.output_type);
    double const arithmetic = std::ldexp(4., -24) * (reference.largest_logit + 8.) * reference.largest_value +
                              std::ldexp(16., -24) * reference.largest_lepe;
    double const weights = outcome.variant == Variant::kPlain ? 0. : WeightTolerance(params, reference);
    size_t wrong = 0;
    std::ostringstream first;
    EXPECT_EQ(outcome.output.size(), reference.output.size());
    for (size_t i = 0; i < reference.output.size(); ++i) {
        double const expected = reference.output[i];
        double const actual = outcome.output[i];
        double const tolerance =
            1.01 * unit * std::fabs(expected) + Underflow(params.output_type) + arithmetic + weights;
        bool const same =
            std::isnan(expected) ? std::isnan(actual) : actual == expected || std::fabs(actual - expected) <= tolerance;
        if (!same && wrong++ == 0) {
            first << "output[" << i << "] = " << actual << ", expected " << expected << " +- " << tolerance;
        }
    }
    if (wrong > 0) {
        first << "; " << wrong << " of " << reference.output.size() << " wrong";
        ADD_FAILURE() << first.str();
    }
}

void CheckAgainstReference(Params const& params, std::vector<double> const& qkv, LepeValues const& lepe,
                           std::optional<AttentionPlan> const& plan) {
    Reference const reference = Compute(params, qkv, lepe);
    Outcome const outcome = RunKernels(params, qkv, lepe, plan);
    CheckMeans(params, outcome.means, reference.means);
    EXPECT_EQ(outcome.routing, reference.routing);
    CheckOutput(params, outcome, reference);
}

}  // namespace edgeformer::bi_level_routing_attention
