#include "temporary_bundle.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "sha256.h"

using nlohmann::json;

TemporaryBundle::TemporaryBundle() {
    std::string path = (std::filesystem::temp_directory_path() / "edgeformer-test-XXXXXX").string();
    folder_ = mkdtemp(path.data());
    manifest = json::parse(R"({
        "edgeformer": "0.1.0", "precision": "int8", "model": {"name": "biformer_nano"}, "target": {"name": "rtx-40"},
        "application": {"task": "classification", "labels": ["zero", "one", "two", "three"], "image": {
            "input": "input", "layout": "NCHW", "channels": "RGB", "height": 2, "width": 2, "resize_mode": "bilinear",
            "crop_fraction": 1.0, "normalization": "mean_std", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}},
        "stages": [{"name": "engine", "details": {"stage": "engine", "report": {
            "flavour": "tensorrt_rtx", "tensorrt_version": "1.7.1.116", "plugin_version": "0.1.0", "sm": 89,
            "op_nodes": 4, "plugin_embedded": false, "cuda_graphs": false,
            "profile": {"input": {"min": [1, 4], "opt": [2, 4], "max": [8, 4]}}}}}],
        "files": {}})");
    manifest["schema_version"] = EDGEFORMER_SCHEMA_VERSION;
    Put("typed.onnx", "double");
    Put("fused.onnx", "double");
    Put("model.engine", "an engine");
    Put("libedgeformer_plugins.so", "a library");
    Put("libedgeformer_plugins.json", R"({"version": "0.1.0", "cuda": "13.0"})");
    engine()["engine_sha256"] = manifest["files"]["model.engine"]["sha256"];
    engine()["engine_bytes"] = manifest["files"]["model.engine"]["size"];
    WriteManifest();
}

TemporaryBundle::~TemporaryBundle() { std::filesystem::remove_all(folder_); }

void TemporaryBundle::WriteManifest() const { Write("manifest.json", manifest.dump()); }

void TemporaryBundle::Put(std::string const& name, std::string const& content) {
    Write(name, content);
    manifest["files"][name] = {{"sha256", edgeformer::Sha256(content.data(), content.size())},
                               {"size", content.size()}};
}

void TemporaryBundle::Write(std::string const& name, std::string const& content) const {
    std::ofstream(PathOf(name), std::ios::binary) << content;
}
