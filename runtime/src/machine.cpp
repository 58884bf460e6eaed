#include "machine.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fault.h"
#include "files.h"
#include "sha256.h"

namespace edgeformer {
namespace {

constexpr char kPlugins[] = "libedgeformer_plugins.so";
constexpr char kPluginsMetadata[] = "libedgeformer_plugins.json";
constexpr size_t kLargestMetadata = size_t{1} << 20;

std::string Dotted(int sm) { return Text(sm / 10, ".", sm % 10); }
std::string CudaText(int cuda) { return Text(cuda / 1000, ".", cuda % 1000 / 10); }

char const* ProductOf(std::string const& flavour) { return flavour == "tensorrt_rtx" ? "TensorRT-RTX" : "TensorRT"; }

std::string Again(Bundle const& bundle, std::string const& target) {
    return Text("`edgeformer build ... --target ", target, " -o ", bundle.folder, "`");
}

}  // namespace

std::string ReleaseOf(std::string const& version) {
    size_t dot = 0;
    for (int part = 0; part < 3 && dot != std::string::npos; ++part) {
        dot = version.find('.', dot == 0 ? 0 : dot + 1);
    }
    return version.substr(0, dot);
}

void CheckGpu(Machine const& machine) {
    if (!machine.gpu_problem.empty()) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF650",
                    Text("no CUDA GPU: ", machine.gpu_problem,
                         ". Run the engine on the machine that it was built for, or the bundle on ONNX Runtime"));
    }
}

void CheckMachine(Machine const& machine) {
    CheckGpu(machine);
    if (!machine.library_problem.empty()) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF605",
                    Text("running an engine needs TensorRT: ", machine.library_problem));
    }
}

PluginFile ReadPlugin(Bundle const& bundle) {
    EngineRecord const& engine = *bundle.engine;
    if (engine.plugin_version.empty() || engine.plugin_embedded) {
        return {};
    }
    PluginFile plugin;
    plugin.path = bundle.PathOf(kPlugins);
    auto const record = bundle.files.find(kPlugins);
    if (record == bundle.files.end() || !Exists(plugin.path)) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF754",
                    Text(bundle.folder, ": the engine needs the plugin library ", kPlugins,
                         " beside it, and it is missing: copy the whole folder of the bundle, or build it again"));
    }
    bool const is_described = Exists(bundle.PathOf(kPluginsMetadata));
    if (is_described) {
        std::vector<char> const content = ReadFile(bundle.PathOf(kPluginsMetadata), kLargestMetadata);
        // Not checked yet: what is nested deeply, which takes stack to free, is dropped.
        auto const is_shallow = [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) { return depth < 10; };
        auto const metadata = nlohmann::json::parse(content.begin(), content.end(), is_shallow, false);
        int major = 0;
        int minor = 0;
        if (metadata.is_object() && metadata.contains("cuda") && metadata["cuda"].is_string() &&
            std::sscanf(metadata["cuda"].get<std::string>().c_str(), "%d.%d", &major, &minor) == 2) {
            plugin.cuda = 1000 * major + 10 * minor;
        }
        if (metadata.is_object() && metadata.contains("version") && metadata["version"].is_string()) {
            plugin.version = metadata["version"].get<std::string>();
        }
    }
    if (plugin.version != engine.plugin_version) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF755",
                    Text(bundle.folder, ": the plugin library is of edgeformer ",
                         plugin.version.empty() ? "an unknown version" : plugin.version,
                         ", and the engine was built with that of ", engine.plugin_version,
                         ": take the library from the bundle's own build, or ", Again(bundle, bundle.target)));
    }
    // Only now: of files that came from another build together, the version tells more than the hash.
    if (is_described) {
        bundle.Content(kPluginsMetadata);
    }
    return plugin;
}

void CheckPluginFile(Bundle const& bundle, PluginFile const& plugin) {
    if (plugin.path.empty()) {
        return;
    }
    FileRecord const& record = bundle.files.at(kPlugins);
    std::vector<char> const library = ReadFile(plugin.path, record.size + 1);
    if (library.size() != record.size || Sha256(library.data(), library.size()) != record.sha256) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF756",
                    Text(plugin.path, " is another file than the one that the build put there (SHA-256 differs), and ",
                         "is not opened: copy the bundle again, or ", Again(bundle, bundle.target)));
    }
}

void CheckMachine(Bundle const& bundle, PluginFile const& plugin, Machine const& machine) {
    EngineRecord const& engine = *bundle.engine;
    char const* const product = ProductOf(engine.flavour);
    CheckGpu(machine);
    if (plugin.cuda / 1000 > machine.driver_cuda / 1000) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF758",
                    Text("the NVIDIA driver runs CUDA ", CudaText(machine.driver_cuda),
                         " at most, and the bundle's plugin library needs ", CudaText(plugin.cuda),
                         ": install a newer driver, or build the plugin library with CUDA ", machine.driver_cuda / 1000,
                         " and the bundle again"));
    }
    if (std::find(engine.sms.begin(), engine.sms.end(), machine.sm) == engine.sms.end()) {
        std::string built_for;
        for (int sm : engine.sms) {
            built_for += (built_for.empty() ? "" : ", ") + Dotted(sm);
        }
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF751",
                    Text(bundle.folder, ": the engine is for compute capability ", built_for, " (", bundle.target,
                         "), and this GPU has ", Dotted(machine.sm),
                         ": build it for this GPU: ", Again(bundle, "local"), "; `edgeformer targets` lists them all"));
    }
    if (!machine.library_problem.empty()) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF605",
                    Text("the engine needs ", product, " ", ReleaseOf(engine.tensorrt_version), ": ",
                         machine.library_problem, machine.others));
    }
    if (engine.flavour != machine.flavour) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF757",
                    Text(bundle.folder, ": the engine is one of ", product, ", and ", machine.library, " is ",
                         ProductOf(machine.flavour), ": name a library of ", product, ", or build the bundle for ",
                         ProductOf(machine.flavour)));
    }
    if (ReleaseOf(engine.tensorrt_version) != ReleaseOf(machine.tensorrt_version)) {
        bool const rtx = engine.flavour == "tensorrt_rtx";
        throw Fault(EDGEFORMER_UNAVAILABLE, rtx ? "EF753" : "EF752",
                    Text(bundle.folder, ": the engine was built with ", product, " ", engine.tensorrt_version, ", and ",
                         machine.library, " is ", machine.tensorrt_version, machine.others, ": engines run on the ",
                         rtx ? "release" : "version", " that built them. ",
                         rtx ? Text("`pip install tensorrt-rtx==", ReleaseOf(engine.tensorrt_version), "`, or ")
                             : Text("Build it on this machine: "),
                         Again(bundle, bundle.target)));
    }
}

}  // namespace edgeformer
