// detect BUNDLE LEAST_SCORE PICTURE.ppm...: what is in each picture with at least that score, and where. With
// DETECT_DUMP=FILE in the environment, the network's outputs are written there as they came.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <edgeformer/model.hpp>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "ppm.h"

namespace {

constexpr float kMostOverlap = 0.5F;

struct Found {
    int64_t label;
    float score;
    float const* box;  // left, top, right, bottom in pixels of the network's input
};

float Overlap(float const* first, float const* second) {
    float const width = std::max(std::min(first[2], second[2]) - std::max(first[0], second[0]), 0.0F);
    float const height = std::max(std::min(first[3], second[3]) - std::max(first[1], second[1]), 0.0F);
    float const common = width * height;
    float const first_area = (first[2] - first[0]) * (first[3] - first[1]);
    float const second_area = (second[2] - second[0]) * (second[3] - second[1]);
    return common / (first_area + second_area - common);
}

// Greedy non-maximum suppression within each class, best first.
std::vector<Found> Find(float const* boxes, float const* scores, int64_t cells, int64_t classes, float least_score) {
    std::vector<Found> candidates;
    for (int64_t index = 0; index < cells * classes; ++index) {
        if (scores[index] >= least_score) {
            candidates.push_back({index % classes, scores[index], boxes + 4 * (index / classes)});
        }
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](Found const& one, Found const& other) { return one.score > other.score; });
    std::vector<Found> kept;
    for (Found const& candidate : candidates) {
        bool const is_new = std::all_of(kept.begin(), kept.end(), [&candidate](Found const& one) {
            return one.label != candidate.label || Overlap(one.box, candidate.box) <= kMostOverlap;
        });
        if (is_new) {
            kept.push_back(candidate);
        }
    }
    return kept;
}

int Fail(std::string const& reason) {
    std::fprintf(stderr, "%s\n", reason.c_str());
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: %s BUNDLE LEAST_SCORE PICTURE.ppm...\n", argv[0]);
        return 2;
    }
    char* end = nullptr;
    float const least_score = std::strtof(argv[2], &end);
    if (*argv[2] == '\0' || *end != '\0') {
        return Fail(std::string(argv[2]) + ": not a number");
    }
    auto model = edgeformer::Model::Load(argv[1]);
    if (!model) {
        return Fail(model.error());
    }
    edgeformer::TensorInfo const input = model->Inputs().front();
    std::vector<edgeformer::TensorInfo> const outputs = model->Outputs();
    if (outputs.size() != 2 || outputs[0].name != "boxes" || outputs[1].name != "scores") {
        return Fail("the model's outputs are not boxes and scores");
    }
    edgeformer::Shape shape = input.shape;  // [batch, 3, height, width]
    shape[0] = 1;
    std::vector<float> pixels(static_cast<size_t>(shape[1] * shape[2] * shape[3]));
    char const* const dump = std::getenv("DETECT_DUMP");
    std::ofstream file;
    if (dump != nullptr) {
        file.open(dump, std::ios::binary);
    }
    for (int index = 3; index < argc; ++index) {
        Picture picture;
        if (!ReadPpm(argv[index], picture)) {
            return Fail(std::string(argv[index]) + ": not a binary PPM file of 8 bits");
        }
        edgeformer::Status const prepared = model->Preprocess({picture.image}, edgeformer::TensorOf(pixels, shape));
        if (!prepared) {
            return Fail(prepared.error());
        }
        auto const results = model->Run({edgeformer::TensorOf(std::as_const(pixels), shape)});
        if (!results) {
            return Fail(results.error());
        }
        edgeformer::Array const& boxes = (*results)[0];
        edgeformer::Array const& scores = (*results)[1];
        if (boxes.data<float>() == nullptr || scores.data<float>() == nullptr) {
            return Fail("boxes and scores are not float32");
        }
        for (edgeformer::Array const& array : *results) {
            file.write(reinterpret_cast<char const*>(array.bytes.data()),
                       static_cast<std::streamsize>(array.bytes.size()));
        }
        float const across = static_cast<float>(picture.image.width) / static_cast<float>(shape[3]);
        float const down = static_cast<float>(picture.image.height) / static_cast<float>(shape[2]);
        std::printf("%s:\n", argv[index]);
        for (Found const& one :
             Find(boxes.data<float>(), scores.data<float>(), scores.shape[1], scores.shape[2], least_score)) {
            std::printf("  %s %.3f at %.1f %.1f %.1f %.1f\n", model->Label(static_cast<int32_t>(one.label)).c_str(),
                        static_cast<double>(one.score), static_cast<double>(one.box[0] * across),
                        static_cast<double>(one.box[1] * down), static_cast<double>(one.box[2] * across),
                        static_cast<double>(one.box[3] * down));
        }
    }
    if (dump != nullptr && !file.flush()) {
        return Fail(std::string(dump) + ": could not be written");
    }
    return 0;
}
