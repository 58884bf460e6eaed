#include "reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace edgeformer::bi_level_routing_attention {
namespace {

// The problem with its numbers named.
class Computation {
public:
    Computation(Params const& params, std::vector<double> const& qkv, LepeValues const& lepe)
        : p_(params),
          qkv_(qkv),
          lepe_(lepe),
          region_height_(params.height / params.regions),
          region_width_(params.width / params.regions),
          regions_(params.regions * params.regions),
          tokens_(region_height_ * region_width_),
          channels_(2 * params.qk_dim + params.dim) {
        result_.output.resize(static_cast<size_t>(p_.batch) * p_.height * p_.width * p_.dim);
    }

    Reference Run() {
        ComputeMeans();
        for (int32_t image = 0; image < p_.batch; ++image) {
            for (int32_t region = 0; region < regions_; ++region) {
                std::vector<int32_t> const picked = Route(image, region);
                result_.routing.insert(result_.routing.end(), picked.begin(), picked.end());
                for (int32_t token = 0; token < tokens_; ++token) {
                    for (int32_t head = 0; head < p_.num_heads; ++head) {
                        Attend(image, region, token, head, picked);
                    }
                }
            }
        }
        return std::move(result_);
    }

private:
    size_t Pixel(int32_t image, int32_t region, int32_t token) const {
        int32_t const row = region / p_.regions * region_height_ + token / region_width_;
        int32_t const column = region % p_.regions * region_width_ + token % region_width_;
        return (static_cast<size_t>(image) * p_.height + row) * p_.width + column;
    }

    double At(size_t pixel, int32_t channel) const { return qkv_[pixel * channels_ + channel]; }
    double Query(size_t pixel, int32_t channel) const { return At(pixel, channel) * p_.q_scale; }
    double Key(size_t pixel, int32_t channel) const { return At(pixel, p_.qk_dim + channel) * p_.k_scale; }
    double Value(size_t pixel, int32_t channel) const { return At(pixel, 2 * p_.qk_dim + channel) * p_.v_scale; }

    // Mean queries, then mean keys, of every region; of INT8 the sums of the integers.
    void ComputeMeans() {
        double const divisor = p_.input_type == ElementType::kInt8 ? 1. : tokens_;
        for (int32_t image = 0; image < p_.batch; ++image) {
            for (int32_t region = 0; region < regions_; ++region) {
                for (int32_t channel = 0; channel < 2 * p_.qk_dim; ++channel) {
                    double sum = 0.;
                    for (int32_t token = 0; token < tokens_; ++token) {
                        sum += At(Pixel(image, region, token), channel);
                    }
                    result_.means.push_back(sum / divisor);
                }
            }
        }
    }

    // Without the scale: a positive factor changes no order, but its roundings would part logits that are equal.
    double RoutingLogit(int32_t image, int32_t row, int32_t column) const {
        double const* queries = result_.means.data() + (image * regions_ + row) * 2 * p_.qk_dim;
        double const* keys = result_.means.data() + (image * regions_ + column) * 2 * p_.qk_dim + p_.qk_dim;
        double logit = 0.;
        for (int32_t channel = 0; channel < p_.qk_dim; ++channel) {
            logit += queries[channel] * keys[channel];
        }
        return logit;
    }

    std::vector<int32_t> Route(int32_t image, int32_t region) const {
        std::vector<double> logits;
        for (int32_t other = 0; other < regions_; ++other) {
            logits.push_back(RoutingLogit(image, region, other));
        }
        std::vector<int32_t> order(regions_);
        std::iota(order.begin(), order.end(), 0);
        // Stable, so equal logits stay in index order; NaN comes before everything else.
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
            return std::isnan(logits[a]) ? !std::isnan(logits[b]) : logits[a] > logits[b];
        });
        order.resize(p_.topk);
        return order;
    }

    void Attend(int32_t image, int32_t region, int32_t token, int32_t head, std::vector<int32_t> const& picked) {
        int32_t const head_dim_qk = p_.qk_dim / p_.num_heads;
        int32_t const head_dim_v = p_.dim / p_.num_heads;
        size_t const query = Pixel(image, region, token);
        std::vector<size_t> keys;
        for (int32_t other : picked) {
            for (int32_t key = 0; key < tokens_; ++key) {
                keys.push_back(Pixel(image, other, key));
            }
        }
        std::vector<double> weights;
        for (size_t key : keys) {
            double logit = 0.;
            double magnitude = 0.;
            for (int32_t i = 0; i < head_dim_qk; ++i) {
                int32_t const channel = head * head_dim_qk + i;
                double const term = p_.scale * Query(query, channel) * Key(key, channel);
                logit += term;
                magnitude += std::fabs(term);
            }
            weights.push_back(logit);
            result_.largest_logit = std::fmax(result_.largest_logit, magnitude);
        }
        Softmax(weights);
        for (int32_t i = 0; i < head_dim_v; ++i) {
            int32_t const channel = head * head_dim_v + i;
            double sum = 0.;
            for (size_t k = 0; k < keys.size(); ++k) {
                sum += weights[k] * Value(keys[k], channel);
                result_.largest_value = std::fmax(result_.largest_value, std::fabs(Value(keys[k], channel)));
            }
            result_.output[query * p_.dim + channel] = sum + (p_.lepe_kernel > 0 ? Lepe(query, channel) : 0.);
        }
    }

    // The depthwise convolution of v around a pixel, zero padded at the border of its image, plus the bias.
    double Lepe(size_t pixel, int32_t channel) {
        auto const row = static_cast<int32_t>(pixel / p_.width % p_.height);
        auto const column = static_cast<int32_t>(pixel % p_.width);
        double sum = lepe_.bias[channel];
        double magnitude = std::fabs(sum);
        for (int32_t i = 0; i < p_.lepe_kernel; ++i) {
            for (int32_t j = 0; j < p_.lepe_kernel; ++j) {
                int32_t const down = i - p_.lepe_kernel / 2;
                int32_t const right = j - p_.lepe_kernel / 2;
                if (row + down < 0 || row + down >= p_.height || column + right < 0 || column + right >= p_.width) {
                    continue;
                }
                size_t const tap = static_cast<size_t>(i * p_.lepe_kernel + j) * p_.dim + channel;
                double const term = lepe_.weight[tap] * Value(pixel + down * p_.width + right, channel);
                sum += term;
                magnitude += std::fabs(term);
            }
        }
        result_.largest_lepe = std::fmax(result_.largest_lepe, magnitude);
        return sum;
    }

    static void Softmax(std::vector<double>& logits) {
        double largest = -INFINITY;
        for (double logit : logits) {
            largest = std::isnan(logit) ? logit : std::max(largest, logit);
        }
        double sum = 0.;
        for (double& logit : logits) {
            logit = std::exp(logit - largest);
            sum += logit;
        }
        for (double& logit : logits) {
            logit /= sum;
        }
    }

    Params const& p_;
    std::vector<double> const& qkv_;
    LepeValues const& lepe_;
    int32_t region_height_;
    int32_t region_width_;
    int32_t regions_;
    int32_t tokens_;
    int32_t channels_;
    Reference result_;
};

}  // namespace

Reference Compute(Params const& params, std::vector<double> const& qkv, LepeValues const& lepe) {
    return Computation(params, qkv, lepe).Run();
}

}  // namespace edgeformer::bi_level_routing_attention
