// Routing of given region means against a stable sort.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "bi_level_routing_attention/harness.h"
#include "bi_level_routing_attention/kernels.h"
#include "emulation/emulator.h"

namespace edgeformer::bi_level_routing_attention {
namespace {

// Small integers, whose products and sums are exact in any order: many ties.
std::vector<float> IntegerMeans(Params const& params, uint32_t seed, int32_t largest) {
    std::mt19937 generator(seed);
    std::vector<float> means(static_cast<size_t>(params.batch) * params.regions * params.regions * 2 * params.qk_dim);
    std::generate(means.begin(), means.end(),
                  [&] { return static_cast<float>(static_cast<int32_t>(generator() % (2 * largest + 1)) - largest); });
    return means;
}

Params Problem(int32_t batch, int32_t regions, int32_t topk, int32_t qk_dim) {
    Params params = MakeParams({batch, regions, regions, 1, regions, topk, qk_dim, qk_dim}, kFloat32);
    params.scale = 0.5F;
    return params;
}

// Of the first `rows` rows, all without a number.
std::vector<int32_t> Expected(Params const& params, std::vector<float> const& means, int32_t rows = -1) {
    int32_t const regions = params.regions * params.regions;
    std::vector<int32_t> routing;
    for (int32_t row = 0; row < (rows >= 0 ? rows : params.batch * regions); ++row) {
        float const* query = means.data() + static_cast<size_t>(row) * 2 * params.qk_dim;
        float const* keys =
            means.data() + static_cast<size_t>(row / regions * regions) * 2 * params.qk_dim + params.qk_dim;
        std::vector<double> logits(regions, 0.);
        for (int32_t region = 0; region < regions; ++region) {
            for (int32_t channel = 0; channel < params.qk_dim; ++channel) {
                logits[region] += static_cast<double>(query[channel]) * params.scale *
                                  keys[static_cast<size_t>(region) * 2 * params.qk_dim + channel];
            }
        }
        std::vector<int32_t> order(regions);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
            return std::isnan(logits[a]) ? !std::isnan(logits[b]) : logits[a] > logits[b];
        });
        routing.insert(routing.end(), order.begin(), order.begin() + params.topk);
    }
    return routing;
}

// Buffers of the exact sizes; the means start `offset` floats past an aligned address.
std::vector<int32_t> Route(Params params, std::vector<float> const& means, size_t offset = 0) {
    std::vector<float> shifted(offset + means.size());
    std::copy(means.begin(), means.end(), shifted.begin() + static_cast<std::ptrdiff_t>(offset));
    std::vector<int32_t> routing(static_cast<size_t>(params.batch) * params.regions * params.regions * params.topk, -1);
    params.means = shifted.data() + offset;
    params.routing = routing.data();
    EXPECT_EQ(LaunchRouting(params, nullptr), cudaSuccess);
    return routing;
}

void Check(Params const& params, std::vector<float> const& means, size_t offset = 0) {
    SCOPED_TRACE("batch " + std::to_string(params.batch) + " regions " + std::to_string(params.regions) + " topk " +
                 std::to_string(params.topk) + " qk_dim " + std::to_string(params.qk_dim));
    EXPECT_EQ(Route(params, means, offset), Expected(params, means));
}

TEST(Routing, EveryNumberOfRegionsAndTopk) {
    uint32_t seed = 3000;
    for (int32_t regions : {1, 2, 3, 7, 8, 9, 16}) {
        int32_t const count = regions * regions;
        for (int32_t topk : {1, 4, count / 2, count / 2 + 1, count}) {
            if (topk >= 1 && topk <= count) {
                Params const params = Problem(regions < 4 ? 2 : 1, regions, topk, 32);
                Check(params, IntegerMeans(params, seed++, 9));
            }
        }
    }
}

TEST(Routing, EveryNumberOfChannels) {
    SKIP_UNDER_THREAD_SANITIZER();
    uint32_t seed = 3100;
    for (int32_t qk_dim : {1, 3, 4, 15, 36, 64, 96, 128, 130, 132, 256, 768}) {
        for (int32_t regions : {3, 9}) {
            Params const params = Problem(1, regions, 4, qk_dim);
            Check(params, IntegerMeans(params, seed++, 9));
        }
    }
}

TEST(Routing, UnalignedMeans) {
    Params const params = Problem(2, 7, 5, 32);
    Check(params, IntegerMeans(params, 3200, 9), 1);
}

// Most rows have more keys at the threshold than places are left for them.
TEST(Routing, TiesAtTheLastPlace) {
    SKIP_UNDER_THREAD_SANITIZER();
    uint32_t seed = 3300;
    for (int32_t regions : {4, 9}) {
        for (int32_t topk : {1, 3, 4, 5, 16, 31, 33, 40, 81}) {
            if (topk <= regions * regions) {
                Params const params = Problem(1, regions, topk, 1);
                Check(params, IntegerMeans(params, seed++, 1));
                Check(params, std::vector<float>(static_cast<size_t>(regions) * regions * 2, 0.F));
            }
        }
    }
}

TEST(Routing, SpecialNumbers) {
    SKIP_UNDER_THREAD_SANITIZER();
    float const infinity = std::numeric_limits<float>::infinity();
    float const nan = std::numeric_limits<float>::quiet_NaN();
    float const largest = std::numeric_limits<float>::max();
    float const smallest = std::numeric_limits<float>::denorm_min();
    std::vector<float> const values{-infinity, infinity, nan,       -nan, 0.F,  -0.F, largest,
                                    -largest,  smallest, -smallest, 2.F,  -2.F, 0.F};
    std::mt19937 generator(3400);
    for (int32_t regions : {5, 9}) {
        for (int32_t topk : {1, 4, 12}) {
            Params params = Problem(2, regions, topk, 1);
            params.scale = 1.F;
            std::vector<float> means(static_cast<size_t>(2) * regions * regions * 2);
            for (size_t i = 0; i < means.size(); ++i) {
                // Queries of 1 and -1 keep the keys' magnitudes, so that float64 has no more precision than is there.
                means[i] = i % 2 == 0 ? (generator() % 2 == 0 ? 1.F : -1.F) : values[generator() % values.size()];
            }
            Check(params, means);
        }
    }
}

TEST(Routing, AllNanTakesTheLowestRegions) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (int32_t regions : {4, 9}) {
        Params const params = Problem(1, regions, 6, 4);
        std::vector<float> const means(static_cast<size_t>(regions) * regions * 8, NAN);
        std::vector<int32_t> const routing = Route(params, means);
        for (size_t i = 0; i < routing.size(); ++i) {
            ASSERT_EQ(routing[i], static_cast<int32_t>(i % 6));
        }
    }
}

// The order in which a logit's products are added depends on nothing but the channels: equal regions tie exactly.
TEST(Routing, EqualRegionsTie) {
    SKIP_UNDER_THREAD_SANITIZER();
    for (int32_t qk_dim : {32, 50, 768}) {
        for (int32_t regions : {7, 12}) {
            Params const params = Problem(1, regions, 9, qk_dim);
            std::mt19937 generator(3500);
            std::normal_distribution<float> distribution;
            std::vector<float> region(static_cast<size_t>(2) * qk_dim);
            std::generate(region.begin(), region.end(), [&] { return distribution(generator); });
            std::vector<float> means;
            for (int32_t i = 0; i < regions * regions; ++i) {
                means.insert(means.end(), region.begin(), region.end());
            }
            std::vector<int32_t> const routing = Route(params, means);
            for (size_t i = 0; i < routing.size(); ++i) {
                ASSERT_EQ(routing[i], static_cast<int32_t>(i % 9)) << "qk_dim " << qk_dim;
            }
        }
    }
}

// More regions than eight rows of shared memory hold: one row a block, with and without picking. All rows would take
// minutes.
TEST(Routing, ManyRegions) {
    for (auto const& [regions, topk] : {std::pair{34, 500}, {40, 900}, {kMaxRegions, 16}, {kMaxRegions, 1000}}) {
        SCOPED_TRACE("regions " + std::to_string(regions) + " topk " + std::to_string(topk));
        Params const params = Problem(1, regions, topk, 4);
        std::vector<float> const means = IntegerMeans(params, 3600, 3);
        constexpr int32_t kRows = 2;
        emulation::LimitBlocks(kRows);
        std::vector<int32_t> const routing = Route(params, means);
        std::vector<int32_t> const expected = Expected(params, means, kRows);
        for (size_t i = 0; i < routing.size(); ++i) {
            ASSERT_EQ(routing[i], i < expected.size() ? expected[i] : -1) << i;
        }
    }
}

}  // namespace
}  // namespace edgeformer::bi_level_routing_attention
