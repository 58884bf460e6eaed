#include "bi_level_routing_attention/problem.h"

#include <limits>

#include "common/text.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

// The sum of as many INT8 numbers fits in 32 bits.
constexpr int64_t kMaxRegionTokens = int64_t{1} << 24;

void CheckSide(Faults& faults, char const* axis, int32_t size, int32_t regions) {
    if (size < 1 || size % regions != 0) {
        faults.Add("got ", axis, "=", size, "; it must be a positive multiple of regions=", regions,
                   ": choose another input size, or pad before the qkv projection");
    }
}

}  // namespace

std::string WhyUnsupported(Params const& params, int64_t channels) {
    Faults faults;
    if (!TypesSupported(params.input_type, params.output_type)) {
        faults.Add("this pair of input and output types is not supported");
    }
    if (params.batch < 0) {
        faults.Add("got N=", params.batch, "; it must not be negative");
    }
    CheckSide(faults, "H", params.height, params.regions);
    CheckSide(faults, "W", params.width, params.regions);
    if (params.dim < 1 || params.dim % params.num_heads != 0) {
        faults.Add("got ", channels, " channels; with qk_dim=", params.qk_dim, " and num_heads=", params.num_heads,
                   " they must be 2 * ", params.qk_dim, " plus a positive multiple of ", params.num_heads);
    }
    if (!faults.empty()) {
        return faults.Joined();
    }
    int64_t const tokens = static_cast<int64_t>(params.height / params.regions) * (params.width / params.regions);
    if (tokens > kMaxRegionTokens) {
        return Text("got H=", params.height, " W=", params.width, "; a region would have ", tokens, " tokens, and ",
                    kMaxRegionTokens, " is the most: use more regions than ", params.regions, " per side");
    }
    int64_t const means = static_cast<int64_t>(params.regions) * params.regions * 2 * params.qk_dim;
    int64_t const limit = std::numeric_limits<int32_t>::max();
    if (LargestGrid(params) > limit || params.topk * tokens > limit || means > limit) {
        return Text("got N=", params.batch, " H=", params.height, " W=", params.width,
                    "; the kernels would need more than 2^31 - 1 blocks, keys of a query or means of an image: use a "
                    "smaller batch or fewer regions");
    }
    return {};
}

size_t RoutingOffset(Params const& params) {
    size_t const regions = static_cast<size_t>(params.regions) * params.regions;
    size_t const means = sizeof(float) * params.batch * regions * 2 * params.qk_dim;
    return (means + kWorkspacePadding - 1) / kWorkspacePadding * kWorkspacePadding;
}

size_t WorkspaceBytes(Params const& params) {
    size_t const regions = static_cast<size_t>(params.regions) * params.regions;
    return RoutingOffset(params) + sizeof(int32_t) * params.batch * regions * params.topk;
}

void AssignWorkspace(Params& params, void* workspace) {
    params.means = static_cast<float*>(workspace);
    params.routing = reinterpret_cast<int32_t*>(static_cast<unsigned char*>(workspace) + RoutingOffset(params));
}

}  // namespace edgeformer::bi_level_routing_attention
