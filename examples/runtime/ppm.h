// A picture from a binary PPM file (P6, 8 bits), the format that needs no library:
//
//   python -c "from PIL import Image; Image.open('dog.jpg').convert('RGB').save('dog.ppm')"
//
// An application decodes with its own library, and hands over pixels: of an OpenCV Mat they are EDGEFORMER_BGR with
// `stride` mat.step, of a camera often EDGEFORMER_NV12.
#pragma once

#include <edgeformer/model.hpp>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

struct Picture {
    std::vector<unsigned char> pixels;
    EdgeformerImage image{};  // points into `pixels`
};

// Whether the file was read.
inline bool ReadPpm(std::string const& path, Picture& picture) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    int width = 0;
    int height = 0;
    int largest = 0;
    file >> magic >> width >> height >> largest;
    file.get();  // the one blank before the pixels
    if (!file || magic != "P6" || largest != 255 || width < 1 || height < 1 ||
        width > std::numeric_limits<int>::max() / 3 / height) {
        return false;
    }
    picture.pixels.resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
    file.read(reinterpret_cast<char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
    picture.image.struct_size = sizeof(picture.image);
    picture.image.pixels = EDGEFORMER_RGB;
    picture.image.width = width;
    picture.image.height = height;
    picture.image.data = picture.pixels.data();
    return static_cast<bool>(file);
}
