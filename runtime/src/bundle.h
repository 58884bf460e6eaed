// A bundle's manifest, as far as running needs it, and the checked contents of its files.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace edgeformer {

struct FileRecord {
    std::string sha256;
    uint64_t size = 0;
};

// How pixels become the network's input: `application.image` of the manifest.
struct ImageSettings {
    std::string input;          // name of the tensor
    std::string layout;         // "NCHW", "NHWC"
    std::string resize_mode;    // "bilinear", "bicubic"
    std::string normalization;  // "mean_std", "scale", "none"
    int height = 0;
    int width = 0;
    double crop_fraction = 1;
    float mean[3] = {0, 0, 0};
    float std[3] = {1, 1, 1};
};

struct Range {
    std::vector<int64_t> minimum;
    std::vector<int64_t> optimum;
    std::vector<int64_t> maximum;
};

// What the engine was built as: details of the manifest's stage "engine".
struct EngineRecord {
    std::string flavour;           // "tensorrt", "tensorrt_rtx"
    std::string tensorrt_version;  // "1.7.1.116"
    std::string plugin_version;    // empty: no plugin
    std::string sha256;
    uint64_t bytes = 0;
    std::vector<int> sms;  // compute capabilities times ten that it runs on
    int op_nodes = 0;
    bool plugin_embedded = false;
    bool cuda_graphs = false;
    std::map<std::string, Range> profile;
};

struct Bundle {
    std::string folder;
    std::string edgeformer;  // version that made it
    std::string model;
    std::string task;
    std::string precision;
    std::string engine_precision;  // of the engine, where it is not that of typed.onnx; else empty
    std::string target;
    std::vector<std::string> labels;
    std::optional<ImageSettings> image;
    std::optional<EngineRecord> engine;
    std::map<std::string, FileRecord> files;

    std::string PathOf(std::string const& name) const { return folder + "/" + name; }

    // The bytes of a file, which are those that the build wrote.
    // Throws Fault EF704: it is missing, or was changed.
    std::vector<char> Content(std::string const& name) const;
};

// Reads and checks a bundle's manifest; no other file is touched.
// Throws Fault EF701 (no bundle), EF702 (no manifest of this schema), EF703 (another schema version), EF759 (its parts
// contradict each other).
Bundle ReadBundle(std::string const& folder);

}  // namespace edgeformer
