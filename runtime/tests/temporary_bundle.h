// A bundle in a folder of its own, for tests: whole to begin with, and then damaged by them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

class TemporaryBundle {
public:
    // With a graph for the test double of ONNX Runtime, an engine for SM 8.9 of TensorRT-RTX 1.7.1, and its plugin
    // library.
    TemporaryBundle();
    TemporaryBundle(TemporaryBundle const&) = delete;
    TemporaryBundle& operator=(TemporaryBundle const&) = delete;
    ~TemporaryBundle();

    std::string const& folder() const { return folder_; }
    std::string PathOf(std::string const& name) const { return folder_ + "/" + name; }

    // The manifest; WriteManifest puts it down.
    nlohmann::json manifest;
    void WriteManifest() const;

    // The engine's report in the manifest.
    nlohmann::json& engine() { return manifest["stages"][0]["details"]["report"]; }

    // Writes a file and lists it in the manifest, as the build would.
    void Put(std::string const& name, std::string const& content);

    // Writes a file and leaves the manifest as it is.
    void Write(std::string const& name, std::string const& content) const;

private:
    std::string folder_;
};
