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

// What the address of every buffer is a multiple of, the workspace's too: the kernels read and write vectors of so many
// bytes. TensorRT aligns tensors to 256 bytes and promises nothing of a plugin's workspace.
inline constexpr size_t kBufferAlignment = 16;
// The parts of the workspace start at multiples of this from its start: where that is aligned alike, in other sectors.
inline constexpr size_t kWorkspacePadding = 256;

// Where params.routing starts in the workspace, in bytes; params.means starts at 0.
size_t RoutingOffset(Params const& params);

// Points params.means and params.routing into a workspace of WorkspaceBytes(params) bytes.
void AssignWorkspace(Params& params, void* workspace);

}  // namespace edgeformer::bi_level_routing_attention
