#include "bundle.h"

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>

#include "fault.h"
#include "files.h"
#include "sha256.h"

namespace edgeformer {
namespace {

using Json = nlohmann::json;

constexpr int kSchemaVersion = EDGEFORMER_SCHEMA_VERSION;
constexpr char kManifest[] = "manifest.json";
constexpr char kEngineReport[] = "model.engine.json";
constexpr size_t kLargestManifest = size_t{64} << 20;
constexpr size_t kLargestFile = size_t{1} << 40;
// A manifest has about ten levels; the parser recurses to free what it has read.
constexpr int kDeepest = 100;
constexpr int kLargestSide = 1 << 16;

// What is wrong with a manifest, without its path.
class Unreadable : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

Json Parse(std::vector<char> const& content) {
    auto const not_too_deep = [](int depth, Json::parse_event_t, Json&) {
        if (depth > kDeepest) {
            throw Unreadable(Text("it is nested more than ", kDeepest, " levels deep"));
        }
        return true;
    };
    try {
        return Json::parse(content.begin(), content.end(), not_too_deep);
    } catch (Json::exception const&) {
        throw Unreadable("it is not JSON");
    }
}

Json const& Member(Json const& object, char const* name) {
    auto const found = object.is_object() ? object.find(name) : object.end();
    if (!object.is_object() || found == object.end()) {
        throw Unreadable(Text("`", name, "` is missing"));
    }
    return *found;
}

std::string String(Json const& object, char const* name) {
    Json const& value = Member(object, name);
    if (!value.is_string()) {
        throw Unreadable(Text("`", name, "` is not a text"));
    }
    return value.get<std::string>();
}

// Null and a member that is not there are empty.
std::string OptionalString(Json const& object, char const* name) {
    return object.contains(name) && !object[name].is_null() ? String(object, name) : std::string();
}

template <class Integer>
Integer Number(Json const& value, char const* name, Integer least, Integer most) {
    bool const fits = value.is_number_integer() &&
                      (value.is_number_unsigned() ? value.get<uint64_t>() <= static_cast<uint64_t>(most)
                                                  : value.get<int64_t>() >= static_cast<int64_t>(least) &&
                                                        value.get<int64_t>() <= static_cast<int64_t>(most));
    if (!fits || (value.is_number_unsigned() && least > 0 && value.get<uint64_t>() < static_cast<uint64_t>(least))) {
        throw Unreadable(Text("`", name, "` is not an integer of ", least, " to ", most));
    }
    return value.get<Integer>();
}

bool Flag(Json const& object, char const* name) {
    Json const& value = Member(object, name);
    if (!value.is_boolean()) {
        throw Unreadable(Text("`", name, "` is neither true nor false"));
    }
    return value.get<bool>();
}

std::string OneOf(Json const& object, char const* name, std::initializer_list<char const*> choices) {
    std::string value = String(object, name);
    if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
        std::string listed;
        for (char const* choice : choices) {
            listed += (listed.empty() ? "" : ", ") + std::string(choice);
        }
        throw Unreadable(Text("`", name, "` is none of ", listed));
    }
    return value;
}

void ReadTriple(Json const& image, char const* name, float (&triple)[3], bool positive) {
    Json const& values = Member(image, name);
    bool fits = values.is_array() && values.size() == 3;
    for (size_t index = 0; fits && index < 3; ++index) {
        fits = values[index].is_number() && (!positive || values[index].get<double>() > 0);
        triple[index] = fits ? static_cast<float>(values[index].get<double>()) : 0;
    }
    if (!fits) {
        throw Unreadable(Text("`", name, "` is not three numbers", positive ? " above 0" : ""));
    }
}

ImageSettings ReadImage(Json const& image) {
    ImageSettings settings;
    settings.input = String(image, "input");
    settings.layout = OneOf(image, "layout", {"NCHW", "NHWC"});
    OneOf(image, "channels", {"RGB"});
    settings.resize_mode = OneOf(image, "resize_mode", {"bilinear", "bicubic"});
    settings.normalization = OneOf(image, "normalization", {"mean_std", "scale", "none"});
    settings.height = Number<int>(Member(image, "height"), "height", 1, kLargestSide);
    settings.width = Number<int>(Member(image, "width"), "width", 1, kLargestSide);
    Json const& fraction = Member(image, "crop_fraction");
    settings.crop_fraction = fraction.is_number() ? fraction.get<double>() : 0;
    if (!(settings.crop_fraction > 0 && settings.crop_fraction <= 1)) {
        throw Unreadable("`crop_fraction` is not a number above 0 and at most 1");
    }
    if (settings.normalization == "mean_std") {
        ReadTriple(image, "mean", settings.mean, false);
        ReadTriple(image, "std", settings.std, true);
    }
    return settings;
}

std::vector<int64_t> ReadShape(Json const& range, char const* name) {
    Json const& sizes = Member(range, name);
    if (!sizes.is_array()) {
        throw Unreadable(Text("`", name, "` of a profile is not a shape"));
    }
    std::vector<int64_t> shape;
    for (Json const& size : sizes) {
        shape.push_back(Number<int64_t>(size, name, 1, int64_t{1} << 40));
    }
    return shape;
}

// What the build said of the engine; null: it made none.
Json const* FindReport(Json const& manifest) {
    Json const& stages = Member(manifest, "stages");
    Json const* report = nullptr;
    for (Json const& stage : stages) {
        if (stage.is_object() && stage.value("name", Json()) == "engine" && stage.contains("details") &&
            stage["details"].is_object() && stage["details"].contains("report")) {
            report = &stage["details"]["report"];
        }
    }
    return report == nullptr || report->is_null() ? nullptr : report;
}

std::optional<EngineRecord> ReadEngine(Json const* report) {
    if (report == nullptr) {
        return std::nullopt;
    }
    EngineRecord engine;
    engine.flavour = OneOf(*report, "flavour", {"tensorrt", "tensorrt_rtx"});
    engine.tensorrt_version = String(*report, "tensorrt_version");
    engine.plugin_version = OptionalString(*report, "plugin_version");
    engine.sha256 = String(*report, "engine_sha256");
    engine.bytes = Number<uint64_t>(Member(*report, "engine_bytes"), "engine_bytes", 1, kLargestFile);
    if (report->contains("sms")) {
        for (Json const& sm : (*report)["sms"]) {
            engine.sms.push_back(Number<int>(sm, "sms", 10, 1000));
        }
        if (engine.sms.empty()) {
            throw Unreadable("`sms` is empty");
        }
    } else {  // as versions wrote it that built for one alone
        engine.sms = {Number<int>(Member(*report, "sm"), "sm", 10, 1000)};
    }
    engine.op_nodes = Number<int>(Member(*report, "op_nodes"), "op_nodes", 0, 1 << 20);
    engine.plugin_embedded = Flag(*report, "plugin_embedded");
    engine.cuda_graphs = Flag(*report, "cuda_graphs");
    Json const& profile = Member(*report, "profile");
    if (!profile.is_object()) {
        throw Unreadable("`profile` is not an object");
    }
    for (auto const& [name, range] : profile.items()) {
        engine.profile[name] = {ReadShape(range, "min"), ReadShape(range, "opt"), ReadShape(range, "max")};
    }
    return engine;
}

bool IsPlain(std::string const& name) {
    return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string("/\\\0", 3)) == name.npos;
}

std::map<std::string, FileRecord> ReadFiles(Json const& manifest) {
    Json const& listed = Member(manifest, "files");
    if (!listed.is_object()) {
        throw Unreadable("`files` is not an object");
    }
    std::map<std::string, FileRecord> files;
    for (auto const& [name, record] : listed.items()) {
        if (!IsPlain(name)) {
            throw Unreadable("a name in `files` is no plain file name");
        }
        files[name] = {String(record, "sha256"), Number<uint64_t>(Member(record, "size"), "size", 0, kLargestFile)};
    }
    return files;
}

Bundle Read(Json const& manifest, std::string const& folder) {
    Bundle bundle;
    bundle.folder = folder;
    bundle.edgeformer = String(manifest, "edgeformer");
    bundle.model = String(Member(manifest, "model"), "name");
    bundle.precision = String(manifest, "precision");
    bundle.engine_precision = OptionalString(manifest, "engine_precision");
    bundle.target = String(Member(manifest, "target"), "name");
    Json const& application = Member(manifest, "application");
    bundle.task = String(application, "task");
    Json const& labels = Member(application, "labels");
    if (!labels.is_null() && !labels.is_array()) {
        throw Unreadable("`labels` is not a list");
    }
    for (Json const& label : labels) {
        if (!label.is_string()) {
            throw Unreadable("`labels` holds something that is no text");
        }
        bundle.labels.push_back(label.get<std::string>());
    }
    Json const& image = Member(application, "image");
    if (!image.is_null()) {
        bundle.image = ReadImage(image);
    }
    bundle.files = ReadFiles(manifest);
    bundle.engine = ReadEngine(FindReport(manifest));
    return bundle;
}

// A manifest that somebody has edited tends to contradict itself: what it says of the engine stands in it twice, and in
// the report of the build once more.
void CheckConsistency(Bundle const& bundle, Json const* report) {
    if (!bundle.engine) {
        return;
    }
    auto const contradicts = [&](std::string const& fault) {
        return Fault(EDGEFORMER_INVALID_BUNDLE, "EF759",
                     Text(bundle.PathOf(kManifest), " contradicts itself: ", fault,
                          ". It was changed after the build: build the bundle again"));
    };
    auto const file = bundle.files.find("model.engine");
    if (file == bundle.files.end()) {
        throw contradicts("it describes an engine, and lists no model.engine");
    }
    if (file->second.sha256 != bundle.engine->sha256) {
        throw contradicts("two different SHA-256 of model.engine stand in it");
    }
    if (file->second.size != bundle.engine->bytes) {
        throw contradicts("two different sizes of model.engine stand in it");
    }
    // A bundle that is run on ONNX Runtime alone need not have it.
    if (bundle.files.count(kEngineReport) == 0 || !Exists(bundle.PathOf(kEngineReport))) {
        return;
    }
    Json const built = Parse(bundle.Content(kEngineReport));
    for (auto const& [name, value] : report->items()) {
        if (built.is_object() && built.contains(name) && built[name] != value) {
            throw contradicts(Text("`", name, "` of the engine is ", value.dump(), " in it, and ", built[name].dump(),
                                   " in ", kEngineReport));
        }
    }
}

}  // namespace

Bundle ReadBundle(std::string const& folder) {
    std::string const path = folder + "/" + kManifest;
    if (!Exists(folder)) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF701",
                    Text(folder, ": no such bundle; `edgeformer build ... -o ", folder, "` makes one"));
    }
    if (!Exists(path)) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF701", Text(folder, ": not a bundle, it has no ", kManifest));
    }
    std::vector<char> const content = ReadFile(path, kLargestManifest);
    Bundle bundle;
    try {
        Json const manifest = Parse(content);
        Json const& version = Member(manifest, "schema_version");
        if (version.is_number_integer() && version != kSchemaVersion) {
            throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF703",
                        Text(path, " has schema version ", version.dump(), ", and this edgeformer reads version ",
                             kSchemaVersion, ": build the bundle again"));
        }
        bundle = Read(manifest, folder);
        CheckConsistency(bundle, FindReport(manifest));
    } catch (Unreadable const& error) {
        throw Fault(
            EDGEFORMER_INVALID_BUNDLE, "EF702",
            Text(path, ": not a manifest of schema version ", kSchemaVersion, " (", error.what(), "); build it again"));
    } catch (Json::exception const& error) {
        throw Fault(EDGEFORMER_INVALID_BUNDLE, "EF702",
                    Text(path, ": not a manifest of schema version ", kSchemaVersion, "; build it again"));
    }
    return bundle;
}

std::vector<char> Bundle::Content(std::string const& name) const {
    auto const record = files.find(name);
    auto const damaged = [&](std::string const& what) {
        return Fault(EDGEFORMER_INVALID_BUNDLE, "EF704",
                     Text(folder, ": damaged bundle: ", name, ": ", what, "; build it again, or copy it again"));
    };
    if (record == files.end()) {
        throw damaged("the manifest does not list it");
    }
    std::string const path = PathOf(name);
    if (!Exists(path)) {
        throw damaged("missing");
    }
    // Before it is read: an engine may be large.
    uint64_t const size = SizeOf(path).value_or(record->second.size);
    if (size != record->second.size) {
        throw damaged(Text("it has ", size, " bytes, and the build wrote ", record->second.size,
                           size < record->second.size ? ": it was cut off" : ""));
    }
    std::vector<char> content = ReadFile(path, kLargestFile);
    if (Sha256(content.data(), content.size()) != record->second.sha256) {
        throw damaged("changed since the build (SHA-256 differs)");
    }
    return content;
}

}  // namespace edgeformer
