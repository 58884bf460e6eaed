#include "bi_level_routing_attention/c_api.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "bi_level_routing_attention/attribute_rules.h"
#include "bi_level_routing_attention/kernels.h"
#include "bi_level_routing_attention/problem.h"
#include "bi_level_routing_attention/run.h"
#include "bi_level_routing_attention/variants.h"
#include "common/c_structs.h"
#include "common/text.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

using Problem = EdgeformerBiLevelRoutingAttentionProblem;
using Workspace = EdgeformerBiLevelRoutingAttentionWorkspace;
using Plan = EdgeformerBiLevelRoutingAttentionPlan;

static_assert(static_cast<int32_t>(ElementType::kFloat32) == EDGEFORMER_FLOAT32);
static_assert(static_cast<int32_t>(ElementType::kFloat16) == EDGEFORMER_FLOAT16);
static_assert(static_cast<int32_t>(ElementType::kBFloat16) == EDGEFORMER_BFLOAT16);
static_assert(static_cast<int32_t>(ElementType::kInt8) == EDGEFORMER_INT8);
static_assert(static_cast<int32_t>(Variant::kPlain) == EDGEFORMER_PLAIN);
static_assert(static_cast<int32_t>(Variant::kGather) == EDGEFORMER_GATHER);
static_assert(static_cast<int32_t>(Variant::kResident) == EDGEFORMER_RESIDENT);

ElementType TypeFrom(int32_t type, char const* name) {
    if (type < EDGEFORMER_FLOAT32 || type > EDGEFORMER_INT8) {
        throw Rejected(EDGEFORMER_UNSUPPORTED_PROBLEM,
                       Text("got ", name, "=", type, "; it must be an EdgeformerType, 0 to 3"));
    }
    return static_cast<ElementType>(type);
}

// The checked problem, without pointers.
Params ParamsFrom(Problem const& problem) {
    Params params;
    params.input_type = TypeFrom(problem.input_type, "input_type");
    params.output_type = TypeFrom(problem.output_type, "output_type");
    params.batch = problem.batch;
    params.height = problem.height;
    params.width = problem.width;
    params.qk_dim = problem.qk_dim;
    params.dim = problem.dim;
    params.num_heads = problem.num_heads;
    params.regions = problem.regions;
    params.topk = problem.topk;
    params.scale = problem.scale;
    bool const quantized = params.input_type == ElementType::kInt8;
    if (quantized) {
        params.q_scale = problem.q_scale;
        params.k_scale = problem.k_scale;
        params.v_scale = problem.v_scale;
    }
    params.lepe_kernel = problem.lepe_kernel;
    params.programmatic_launch = problem.programmatic_launch != 0;
    Faults faults;
    CheckAttributes(params, quantized, faults);
    int64_t const channels = int64_t{2} * params.qk_dim + params.dim;
    if (channels > std::numeric_limits<int32_t>::max()) {
        faults.Add("got ", channels, " channels; the kernels count them in 31 bits");
    }
    std::string const why = faults.empty() ? WhyUnsupported(params, channels) : faults.Joined();
    if (!why.empty()) {
        throw Rejected(EDGEFORMER_UNSUPPORTED_PROBLEM, why);
    }
    return params;
}

// "2 (gather)"; a number that is no variant stands alone.
std::string Described(Variant variant) {
    char const* const name = NameOf(variant);
    std::string const number = std::to_string(static_cast<int32_t>(variant));
    return name != nullptr ? Text(number, " (", name, ")") : number;
}

// The plan of the variant that the caller asks for, of the table's without one.
AttentionPlan PlanFor(Problem const& problem, Params const& params, Device const& device) {
    if (problem.variant == EDGEFORMER_AUTOMATIC) {
        return PlanAttention(params, device);
    }
    std::vector<Variant> const possible = VariantsFor(params, device);
    auto const wanted = static_cast<Variant>(problem.variant);
    if (std::find(possible.begin(), possible.end(), wanted) == possible.end()) {
        std::string choices;
        for (Variant const variant : possible) {
            choices += Text(Described(variant), ", ");
        }
        throw Rejected(
            EDGEFORMER_UNSUPPORTED_PROBLEM,
            Text("got variant=", Described(wanted), "; for this problem on a GPU of compute capability ",
                 device.compute_capability, " it must be one of ", choices, "or 0 for the library's choice"));
    }
    return PlanAttention(params, device, wanted);
}

void CheckBuffers(Params const& params, void const* workspace, size_t workspace_bytes) {
    try {
        RequireBuffers(params, workspace);
    } catch (std::invalid_argument const& error) {
        throw Rejected(EDGEFORMER_INVALID_BUFFER, error.what());
    }
    if (params.lepe_kernel == 0 && (params.lepe_weight != nullptr || params.lepe_bias != nullptr)) {
        throw Rejected(EDGEFORMER_INVALID_BUFFER, "got a LePE weight or bias with lepe_kernel=0; they must be null");
    }
    if (workspace_bytes < WorkspaceBytes(params)) {
        throw Rejected(EDGEFORMER_INVALID_BUFFER, Text("got a workspace of ", workspace_bytes,
                                                       " bytes; the problem needs ", WorkspaceBytes(params)));
    }
}

void RunProblem(Problem const& problem, Params params, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
    if (params.batch == 0) {
        return;
    }
    CheckBuffers(params, workspace, workspace_bytes);
    AssignWorkspace(params, workspace);
    Run(params, PlanFor(problem, params, CurrentDevice()), stream);
}

Workspace LayoutOf(Params const& params) {
    size_t const regions = static_cast<size_t>(params.batch) * params.regions * params.regions;
    Workspace layout{};
    layout.alignment = kBufferAlignment;
    layout.bytes = WorkspaceBytes(params);
    layout.means_offset = 0;
    layout.means_bytes = regions * 2 * params.qk_dim * sizeof(float);
    layout.routing_offset = RoutingOffset(params);
    layout.routing_bytes = regions * params.topk * sizeof(int32_t);
    return layout;
}

Device DeviceFrom(EdgeformerDevice const* device) {
    if (device == nullptr) {
        return CurrentDevice();
    }
    EdgeformerDevice const given = Read(device, "device");
    if (given.compute_capability < 1 || given.max_shared_bytes < 1 || given.multiprocessors < 1) {
        throw Rejected(EDGEFORMER_UNSUPPORTED_PROBLEM,
                       "compute_capability, max_shared_bytes and multiprocessors of `device` must be positive");
    }
    return {given.compute_capability, given.max_shared_bytes, given.multiprocessors};
}

Plan Describe(AttentionPlan const& plan, std::vector<Variant> const& possible) {
    Plan result{};
    result.variant = static_cast<int32_t>(plan.variant);
    static_assert(sizeof(result.variants) / sizeof(result.variants[0]) > EDGEFORMER_RESIDENT);
    for (Variant const variant : possible) {
        result.variants[result.variant_count++] = static_cast<int32_t>(variant);
    }
    result.head_dim = plan.head_dim;
    result.warps = plan.warps;
    result.heads = plan.heads;
    result.stages = plan.stages;
    result.splits = plan.splits;
    result.shared_bytes = plan.shared_bytes;
    result.blocks = plan.blocks;
    return result;
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention

namespace bra = edgeformer::bi_level_routing_attention;

extern "C" {

int32_t edgeformerBiLevelRoutingAttention(EdgeformerBiLevelRoutingAttentionProblem const* problem, void const* qkv,
                                          void const* lepe_weight, void const* lepe_bias, void* output, void* workspace,
                                          size_t workspace_bytes, void* stream) {
    return edgeformer::Call(__func__, [&] {
        bra::Problem const known = edgeformer::Read(problem, "problem");
        bra::Params params = bra::ParamsFrom(known);
        params.qkv = qkv;
        params.lepe_weight = lepe_weight;
        params.lepe_bias = lepe_bias;
        params.output = output;
        bra::RunProblem(known, params, workspace, workspace_bytes, static_cast<cudaStream_t>(stream));
    });
}

int32_t edgeformerBiLevelRoutingAttentionWorkspace(EdgeformerBiLevelRoutingAttentionProblem const* problem,
                                                   EdgeformerBiLevelRoutingAttentionWorkspace* layout) {
    return edgeformer::Call(__func__, [&] {
        edgeformer::Write(bra::LayoutOf(bra::ParamsFrom(edgeformer::Read(problem, "problem"))), layout, "layout");
    });
}

int32_t edgeformerBiLevelRoutingAttentionPlan(EdgeformerBiLevelRoutingAttentionProblem const* problem,
                                              EdgeformerDevice const* device,
                                              EdgeformerBiLevelRoutingAttentionPlan* plan) {
    return edgeformer::Call(__func__, [&] {
        bra::Problem const known = edgeformer::Read(problem, "problem");
        bra::Params const params = bra::ParamsFrom(known);
        bra::Device const where = bra::DeviceFrom(device);
        edgeformer::Write(bra::Describe(bra::PlanFor(known, params, where), bra::VariantsFor(params, where)), plan,
                          "plan");
    });
}
}
