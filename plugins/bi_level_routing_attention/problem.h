// Shapes, types and workspace of one call: everything that is checked before a kernel is launched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "bi_level_routing_attention/kernels.h"

namespace edgeformer::bi_level_routing_attention {

// Why the kernels cannot take these sizes and types, or an empty string. Pointers are not looked at; `channels` is the
// last dimension of qkv, of which `params.dim` should be the rest after queries and keys.
std::string WhyUnsupported(Params const& params, int64_t channels);

// Bytes of workspace behind params.means and params.routing.
size_t WorkspaceBytes(Params const& params);

// What the workspace's address is a multiple of, in bytes: TensorRT's promise for device memory, and CUDA's.
inline constexpr size_t kWorkspaceAlignment = 256;

// Where params.routing starts in the workspace, in bytes; params.means starts at 0.
size_t RoutingOffset(Params const& params);

// Points params.means and params.routing into a workspace of WorkspaceBytes(params) bytes.
void AssignWorkspace(Params& params, void* workspace);

}  // namespace edgeformer::bi_level_routing_attention
