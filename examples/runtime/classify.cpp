// classify BUNDLE PICTURE.ppm...: the three best classes of each picture.
#include <cstdio>
#include <edgeformer/model.hpp>
#include <vector>

#include "ppm.h"

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s BUNDLE PICTURE.ppm...\n", argv[0]);
        return 2;
    }
    auto model = edgeformer::Model::Load(argv[1]);
    if (!model) {
        std::fprintf(stderr, "%s\n", model.error().c_str());
        return 1;
    }
    std::vector<Picture> pictures(static_cast<size_t>(argc - 2));
    std::vector<EdgeformerImage> images;
    for (size_t index = 0; index < pictures.size(); ++index) {
        if (!ReadPpm(argv[index + 2], pictures[index])) {
            std::fprintf(stderr, "%s: not a binary PPM file of 8 bits\n", argv[index + 2]);
            return 1;
        }
        images.push_back(pictures[index].image);
    }
    auto const classes = model->Classify(images, 3);
    if (!classes) {
        std::fprintf(stderr, "%s\n", classes.error().c_str());
        return 1;
    }
    for (size_t index = 0; index < images.size(); ++index) {
        std::printf("%s:", argv[index + 2]);
        for (edgeformer::Class const& one : (*classes)[index]) {
            std::printf(" %s %.4f", one.label.c_str(), static_cast<double>(one.probability));
        }
        std::printf("\n");
    }
    return 0;
}
