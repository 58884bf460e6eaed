// LePE in the attention kernels against the float64 reference.
#include <gtest/gtest.h>

#include "bi_level_routing_attention/harness.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

constexpr Shape kShapes[] = {
    {2, 14, 14, 2, 7, 4, 64, 64},  // more regions than the convolution reaches over
    {2, 8, 12, 2, 2, 2, 64, 64},   // two images: a tap past the border would read the other one
    {1, 2, 3, 1, 1, 1, 32, 32},    // the convolution is larger than the image
    {1, 1, 9, 1, 1, 1, 32, 32},    // one row
    {1, 9, 6, 3, 3, 5, 96, 96},    // three heads
    {1, 4, 6, 1, 2, 3, 64, 128},   // wide values
    {1, 4, 4, 3, 2, 2, 15, 21},    // channels that no vector access takes
};

void CheckKernel(int32_t kernel) {
    uint32_t seed = 1000 + kernel;
    for (Types const& types : kAllTypes) {
        for (Shape const& shape : kShapes) {
            SCOPED_TRACE(Describe(shape, types) + " LePE " + std::to_string(kernel));
            Params params = MakeParams(shape, types);
            params.lepe_kernel = kernel;
            CheckAgainstReference(params, MakeInput(params, Random(seed)), MakeLepe(params, seed + 1));
            seed += 2;
        }
    }
}

TEST(Lepe, OfOneToken) { CheckKernel(1); }
TEST(Lepe, OfThreeByThree) { CheckKernel(3); }
TEST(Lepe, OfFiveByFive) { CheckKernel(5); }
TEST(Lepe, OfSevenBySeven) { CheckKernel(7); }

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
