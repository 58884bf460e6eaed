// load BUNDLE IMAGES: load.c in C++.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <edgeformer/model.hpp>
#include <string>
#include <vector>

namespace {

std::string LoadAndRun(char const* path, int64_t images) {
    edgeformer::LoadOptions options;
    options.backend = EDGEFORMER_TENSORRT;
    options.trust_bundle = 1;
    auto model = edgeformer::Model::Load(path, options);
    if (!model) {
        return model.error();
    }
    std::vector<float> const pixels(static_cast<size_t>(images * 12));
    if (images > 0) {
        auto const outputs = model->Run({edgeformer::TensorOf(pixels, {images, 3, 2, 2})});
        if (!outputs) {
            return outputs.error();
        }
    }
    return "ran";
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        return 2;
    }
    auto const before = std::chrono::steady_clock::now();
    std::string const message = LoadAndRun(argv[1], std::atoi(argv[2]));
    std::chrono::duration<double, std::milli> const taken = std::chrono::steady_clock::now() - before;
    std::printf("%.3f\n%s\n", taken.count(), message.c_str());
    return 0;
}
