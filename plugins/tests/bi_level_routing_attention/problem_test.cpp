// What is checked before a launch, and the workspace.
#include "bi_level_routing_attention/problem.h"

#include <gtest/gtest.h>

#include "bi_level_routing_attention/harness.h"
#include "expect_contains.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

std::string Why(Shape const& shape, Types const& types = kInt8Float16) {
    Params const params = MakeParams(shape, types);
    return WhyUnsupported(params, Channels(params));
}

TEST(Problem, SizesWithinTheLimits) {
    EXPECT_EQ(Why({0, 14, 14, 2, 7, 4, 64, 64}), "");
    EXPECT_EQ(Why({1, 4096, 4096, 1, 1, 1, 16, 16}), "");  // 2^24 tokens in one region
}

TEST(Problem, RegionsWithTooManyTokens) {
    std::string const why = Why({1, 4096, 8192, 1, 1, 1, 16, 16});
    EXPECT_CONTAINS(why, "33554432 tokens");
    EXPECT_CONTAINS(why, "use more regions than 1 per side");
}

TEST(Problem, MoreThan32BitsCanCount) {
    EXPECT_CONTAINS(Why({1, 65536, 65536, 1, 16, 128, 16, 16}), "keys of a query");
    EXPECT_CONTAINS(Why({1, 110, 110, 1, 110, 1, 100000, 1}), "means of an image");
    EXPECT_CONTAINS(Why({2000000000, 14, 14, 1, 7, 1, 16, 16}), "2^31 - 1 blocks");
}

TEST(Problem, TheWorkspaceHoldsMeansAndRouting) {
    Params params = MakeParams({3, 14, 14, 2, 7, 4, 48, 64}, kFloat16);
    EXPECT_EQ(RoutingOffset(params), 3U * 49 * 2 * 48 * 4 / 256 * 256 + 256);
    EXPECT_EQ(WorkspaceBytes(params), RoutingOffset(params) + 3U * 49 * 4 * 4);
    alignas(256) unsigned char workspace[1];
    AssignWorkspace(params, workspace);
    EXPECT_EQ(static_cast<void*>(params.means), workspace);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(params.routing) - reinterpret_cast<uintptr_t>(workspace),
              RoutingOffset(params));
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
