#include "bundle.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "expect_contains.h"
#include "fault_of.h"
#include "sha256.h"
#include "temporary_bundle.h"

using edgeformer::Bundle;
using edgeformer::ReadBundle;

namespace {

std::string ReadFault(TemporaryBundle const& bundle) {
    return FaultOf([&] { ReadBundle(bundle.folder()); });
}

}  // namespace

TEST(Sha256, IsThatOfTheStandard) {
    // FIPS 180-4: the examples of one block and of none.
    EXPECT_EQ(edgeformer::Sha256("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(edgeformer::Sha256("", 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(ReadBundle, TakesWhatRunningNeeds) {
    TemporaryBundle const made;
    Bundle const bundle = ReadBundle(made.folder());
    EXPECT_EQ(bundle.model, "biformer_nano");
    EXPECT_EQ(bundle.task, "classification");
    EXPECT_EQ(bundle.precision, "int8");
    EXPECT_EQ(bundle.labels, (std::vector<std::string>{"zero", "one", "two", "three"}));
    ASSERT_TRUE(bundle.image);
    EXPECT_EQ(bundle.image->normalization, "mean_std");
    EXPECT_EQ(bundle.image->std[2], 0.25F);
    ASSERT_TRUE(bundle.engine);
    EXPECT_EQ(bundle.engine->sms, std::vector<int>{89});
    EXPECT_EQ(bundle.engine->profile.at("input").maximum, (std::vector<int64_t>{8, 4}));
    EXPECT_EQ(bundle.Content("typed.onnx").size(), 6U);
}

TEST(ReadBundle, TellsAnEnginesOwnPrecision) {
    TemporaryBundle made;
    EXPECT_EQ(ReadBundle(made.folder()).engine_precision, "");
    made.manifest["engine_precision"] = nullptr;
    made.WriteManifest();
    EXPECT_EQ(ReadBundle(made.folder()).engine_precision, "");
    made.manifest["engine_precision"] = "fp16";
    made.WriteManifest();
    Bundle const bundle = ReadBundle(made.folder());
    EXPECT_EQ(bundle.engine_precision, "fp16");
    EXPECT_EQ(bundle.precision, "int8");
}

TEST(ReadBundle, TakesABundleWithoutEngineLabelsAndImage) {
    TemporaryBundle made;
    made.manifest["stages"][0]["details"]["report"] = nullptr;
    made.manifest["application"]["labels"] = nullptr;
    made.manifest["application"]["image"] = nullptr;
    made.WriteManifest();
    Bundle const bundle = ReadBundle(made.folder());
    EXPECT_FALSE(bundle.engine);
    EXPECT_FALSE(bundle.image);
    EXPECT_TRUE(bundle.labels.empty());
}

TEST(ReadBundle, RefusesWhatIsNoBundle) {
    EXPECT_CONTAINS(FaultOf([] { ReadBundle("/no/such/folder"); }), "EF701: /no/such/folder: no such bundle");
    TemporaryBundle const made;
    std::filesystem::remove(made.PathOf("manifest.json"));
    EXPECT_CONTAINS(ReadFault(made), "EF701: ");
    EXPECT_CONTAINS(ReadFault(made), "it has no manifest.json");
    std::filesystem::create_directory(made.PathOf("manifest.json"));
    EXPECT_CONTAINS(ReadFault(made), "it is no regular file");
    std::filesystem::remove(made.PathOf("manifest.json"));
    ASSERT_EQ(mkfifo(made.PathOf("manifest.json").c_str(), 0600), 0);
    EXPECT_CONTAINS(ReadFault(made), "it is no regular file");
}

TEST(ReadBundle, RefusesAnotherSchema) {
    TemporaryBundle made;
    made.manifest["schema_version"] = 1;
    made.WriteManifest();
    EXPECT_CONTAINS(ReadFault(made), "EF703: ");
    EXPECT_CONTAINS(ReadFault(made), "has schema version 1, and this edgeformer reads version");
}

TEST(ReadBundle, RefusesAManifestThatIsNotJson) {
    TemporaryBundle const made;
    for (std::string const& text : {std::string(), std::string("{"), std::string("\0\0", 2), std::string("nonsense")}) {
        made.Write("manifest.json", text);
        EXPECT_CONTAINS(ReadFault(made), "EF702: ");
        EXPECT_CONTAINS(ReadFault(made), "it is not JSON");
    }
    made.Write("manifest.json", std::string(2'000'000, '['));
    EXPECT_CONTAINS(ReadFault(made), "it is nested more than 100 levels deep");
    for (char const* text : {"[]", "3", "null", "\"text\"", "{}"}) {
        made.Write("manifest.json", text);
        EXPECT_CONTAINS(ReadFault(made), "`schema_version` is missing");
    }
}

TEST(ReadBundle, NamesTheMemberThatIsWrong) {
    struct Case {
        char const* path;
        char const* value;
        char const* fault;
    };
    for (Case const& wrong : {
             Case{"/model/name", "7", "`name` is not a text"},
             Case{"/application/labels", "7", "`labels` is not a list"},
             Case{"/application/labels", "[7]", "`labels` holds something that is no text"},
             Case{"/application/image/layout", "\"NCWH\"", "`layout` is none of NCHW, NHWC"},
             Case{"/application/image/height", "0", "`height` is not an integer of 1 to 65536"},
             Case{"/application/image/height", "-3", "`height` is not an integer of 1 to 65536"},
             Case{"/application/image/height", "2.5", "`height` is not an integer of 1 to 65536"},
             Case{"/application/image/width", "18446744073709551615", "`width` is not an integer"},
             Case{"/application/image/crop_fraction", "0", "`crop_fraction` is not a number above 0"},
             Case{"/application/image/std", "[1, 0, 1]", "`std` is not three numbers above 0"},
             Case{"/application/image/mean", "[1, 2]", "`mean` is not three numbers"},
             Case{"/files", "[]", "`files` is not an object"},
             Case{"/files/typed.onnx/size", "-1", "`size` is not an integer"},
             Case{"/stages/0/details/report/sm", "\"89\"", "`sm` is not an integer of 10 to 1000"},
             Case{"/stages/0/details/report/sms", "[89, 7]", "`sms` is not an integer of 10 to 1000"},
             Case{"/stages/0/details/report/sms", "[]", "`sms` is empty"},
             Case{"/stages/0/details/report/flavour", "\"cuda\"", "`flavour` is none of tensorrt, tensorrt_rtx"},
             Case{"/stages/0/details/report/plugin_embedded", "1", "`plugin_embedded` is neither true nor false"},
             Case{"/stages/0/details/report/profile", "[]", "`profile` is not an object"},
             Case{"/stages/0/details/report/profile/input/min", "[0]", "`min` is not an integer of 1 to"},
         }) {
        TemporaryBundle made;
        made.manifest[nlohmann::json::json_pointer(wrong.path)] = nlohmann::json::parse(wrong.value);
        made.WriteManifest();
        EXPECT_CONTAINS(ReadFault(made), "EF702: ");
        EXPECT_CONTAINS(ReadFault(made), wrong.fault);
    }
}

TEST(ReadBundle, RefusesNamesThatLeadElsewhere) {
    for (char const* name : {"../x", "/etc/passwd", "..", ".", "", "a/b", "a\\b"}) {
        TemporaryBundle made;
        made.manifest["files"][name] = {{"sha256", ""}, {"size", 0}};
        made.WriteManifest();
        EXPECT_CONTAINS(ReadFault(made), "a name in `files` is no plain file name");
    }
}

TEST(ReadBundle, NoticesAnEditedManifest) {
    TemporaryBundle made;
    made.engine()["engine_sha256"] = std::string(64, '0');
    made.WriteManifest();
    EXPECT_CONTAINS(ReadFault(made), "EF759: ");
    EXPECT_CONTAINS(ReadFault(made), "two different SHA-256 of model.engine");
    made.engine()["engine_sha256"] = made.manifest["files"]["model.engine"]["sha256"];
    made.engine()["engine_bytes"] = 5;
    made.WriteManifest();
    EXPECT_CONTAINS(ReadFault(made), "two different sizes of model.engine");
    made.manifest["files"].erase("model.engine");
    made.WriteManifest();
    EXPECT_CONTAINS(ReadFault(made), "lists no model.engine");
}

TEST(ReadBundle, ComparesTheManifestWithTheReportOfTheBuild) {
    TemporaryBundle made;
    made.Put("model.engine.json", made.engine().dump());
    made.WriteManifest();
    ReadBundle(made.folder());
    made.engine()["sm"] = 87;
    made.WriteManifest();
    EXPECT_CONTAINS(ReadFault(made), "EF759: ");
    EXPECT_CONTAINS(ReadFault(made), "`sm` of the engine is 87 in it, and 89 in model.engine.json");
    std::filesystem::remove(made.PathOf("model.engine.json"));
    ReadBundle(made.folder());
}

TEST(Content, NamesTheFileThatIsNotWhatTheBuildWrote) {
    TemporaryBundle const made;
    Bundle const bundle = ReadBundle(made.folder());
    auto const fault = [&] { return FaultOf([&] { bundle.Content("model.engine"); }); };
    made.Write("model.engine", "an engin");
    EXPECT_CONTAINS(fault(), "EF704: ");
    EXPECT_CONTAINS(fault(), "model.engine: it has 8 bytes, and the build wrote 9: it was cut off");
    made.Write("model.engine", "an enginf");
    EXPECT_CONTAINS(fault(), "model.engine: changed since the build (SHA-256 differs)");
    std::filesystem::remove(made.PathOf("model.engine"));
    EXPECT_CONTAINS(fault(), "model.engine: missing");
    EXPECT_CONTAINS(FaultOf([&] { bundle.Content("other"); }), "other: the manifest does not list it");
}
