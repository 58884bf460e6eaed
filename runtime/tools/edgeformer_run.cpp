// edgeformer-run: describes a bundle, an engine or an ONNX file, classifies pictures with it, or runs it on arrays.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <edgeformer/model.hpp>
#include <string>
#include <vector>

#include "common/text.h"
#include "npy.h"
#include "ppm.h"

namespace edgeformer::tools {
namespace {

constexpr char kUsage[] =
    R"(usage: edgeformer-run MODEL [options] [FILE...]

MODEL is a bundle, an engine or an ONNX file. Without FILE it is described.

  PICTURE.ppm...    classify pictures (binary PPM): the best classes of each with their probabilities
  [NAME=]ARRAY.npy  run it once: an array for each input, in the model's order or by name

  --backend NAME    tensorrt or onnxruntime (default: TensorRT where it can run the model, else ONNX Runtime)
  --graph NAME      which graph of a bundle ONNX Runtime runs: typed (default) or fused
  --device N        CUDA device (default: 0)
  --threads N       threads of one run in ONNX Runtime (default: one a core)
  --top N           classes of each picture (default: 5, or as many as there are)
  --output FOLDER   write each output to FOLDER/NAME.npy; without it they are only described
  --plugin-library FILE   of an engine that is in no bundle
  --trust-bundle    you trust who made the bundle: its engine and plugin library are code
  --help, --version
)";

struct Options {
    LoadOptions load;
    std::string model;
    std::vector<std::string> files;
    std::string output;
    std::string plugin_library;
    int32_t top = 0;  // 0: the default
};

Status Wrong(char const* code, std::string const& message) {
    return Status(EDGEFORMER_INVALID_ARGUMENT, Text(code, ": ", message));
}

// As the Python package's command line ends.
int ExitCodeOf(Status const& status) {
    switch (status.code()) {
        case EDGEFORMER_SUCCESS: return 0;
        case EDGEFORMER_INVALID_ARGUMENT:
        case EDGEFORMER_INVALID_BUFFER:
        case EDGEFORMER_INVALID_BUNDLE:
        case EDGEFORMER_BACKEND_ERROR: return 2;
        case EDGEFORMER_CUDA_ERROR:
        case EDGEFORMER_UNAVAILABLE:
        case EDGEFORMER_BUSY: return 4;
        default: return 1;
    }
}

bool EndsWith(std::string const& text, std::string const& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// A number from 0 to a million, or -1.
int32_t NumberOf(std::string const& text) {
    bool const is_number = !text.empty() && text.size() <= 6 && text.find_first_not_of("0123456789") == text.npos;
    return is_number ? std::stoi(text) : -1;
}

Status Choose(std::string const& option, std::string const& value, std::vector<std::string> const& names, int32_t first,
              int32_t& chosen) {
    auto const found = std::find(names.begin(), names.end(), value);
    if (found == names.end()) {
        return Wrong("EF101", Text(option, " is ", value, "; it is ", names[0], " or ", names[1]));
    }
    chosen = first + static_cast<int32_t>(found - names.begin());
    return Status();
}

Status Take(std::string const& option, std::string const& value, Options& options) {
    if (option == "--backend") {
        return Choose(option, value, {"tensorrt", "onnxruntime"}, EDGEFORMER_TENSORRT, options.load.backend);
    }
    if (option == "--graph") {
        return Choose(option, value, {"typed", "fused"}, EDGEFORMER_TYPED_GRAPH, options.load.graph);
    }
    if (option == "--output" || option == "-o") {
        return options.output = value, Status();
    }
    if (option == "--plugin-library") {
        return options.plugin_library = value, Status();
    }
    bool const is_known = option == "--device" || option == "--threads" || option == "--top";
    if (!is_known) {
        return Wrong("EF101", Text("there is no option ", option, "; --help lists them"));
    }
    int32_t const number = NumberOf(value);
    if (number < (option == "--device" ? 0 : 1)) {
        return Wrong("EF101", Text(option, " is ", value, "; it is a number, ",
                                   option == "--device" ? "0 or more" : "1 or more"));
    }
    (option == "--device" ? options.load.device : option == "--threads" ? options.load.threads : options.top) = number;
    return Status();
}

Status ReadOptions(std::vector<std::string> const& words, Options& options) {
    for (size_t index = 0; index < words.size(); ++index) {
        std::string const& word = words[index];
        if (word == "--trust-bundle") {
            options.load.trust_bundle = 1;
        } else if (word.size() > 1 && word[0] == '-') {
            if (index + 1 == words.size()) {
                return Wrong("EF103", Text(word, " needs a value, or is no option; --help lists them"));
            }
            Status const status = Take(word, words[++index], options);
            if (!status) {
                return status;
            }
        } else if (options.model.empty()) {
            options.model = word;
        } else {
            options.files.push_back(word);
        }
    }
    options.load.plugin_library = options.plugin_library.empty() ? nullptr : options.plugin_library.c_str();
    return options.model.empty() ? Wrong("EF103", "no model was given; --help tells how") : Status();
}

std::string ShapeText(Shape const& shape) {
    std::string text;
    for (int64_t const size : shape) {
        text += (text.empty() ? "" : ", ") + (size < 0 ? std::string("?") : std::to_string(size));
    }
    return "[" + text + "]";
}

void PrintTensors(char const* what, std::vector<TensorInfo> const& tensors) {
    for (TensorInfo const& tensor : tensors) {
        std::printf("%-9s %s, %s %s", what, tensor.name.c_str(), NameOf(tensor.type), ShapeText(tensor.shape).c_str());
        bool const is_bounded =
            std::all_of(tensor.maximum.begin(), tensor.maximum.end(), [](int64_t n) { return n >= 0; });
        if (is_bounded && tensor.minimum != tensor.maximum) {
            std::printf(", from %s to %s", ShapeText(tensor.minimum).c_str(), ShapeText(tensor.maximum).c_str());
        }
        std::printf("\n");
    }
}

void Describe(Model const& model) {
    EdgeformerModelInfo const info = model.Describe();
    std::string about = info.name;
    for (char const* const part : {info.task, info.precision}) {
        about += *part == '\0' ? "" : Text(", ", part);
    }
    std::printf("model     %s\nfile      %s\n", about.c_str(), info.file);
    if (info.labels > 0) {
        std::printf("labels    %d: %s, ...\n", info.labels, model.Label(0).c_str());
    }
    std::printf("backend   %s %s, %s\n", info.backend == EDGEFORMER_TENSORRT ? "TensorRT" : "ONNX Runtime",
                info.backend_version, info.backend_library);
    if (*info.backend_reason != '\0') {
        std::printf("reason    %s\n", info.backend_reason);
    }
    PrintTensors("input", model.Inputs());
    PrintTensors("output", model.Outputs());
}

Status Classify(Model& model, Options const& options) {
    std::vector<Picture> pictures(options.files.size());
    std::vector<EdgeformerImage> images;
    for (size_t index = 0; index < pictures.size(); ++index) {
        if (!ReadPpm(options.files[index], pictures[index])) {
            return Wrong("EF850", Text(options.files[index],
                                       ": not a binary PPM file (P6) of 8 bits. `python -c \"from "
                                       "PIL import Image; Image.open('a.jpg').convert('RGB')"
                                       ".save('a.ppm')\"` makes one"));
        }
        images.push_back(pictures[index].image);
    }
    int64_t const classes = model.Outputs().front().shape.back();
    int32_t const usual = classes >= 1 && classes < 5 ? static_cast<int32_t>(classes) : 5;
    auto const found = model.Classify(images, options.top == 0 ? usual : options.top);
    if (!found) {
        return found.status();
    }
    for (size_t index = 0; index < images.size(); ++index) {
        std::printf("%s:\n", options.files[index].c_str());
        for (Class const& one : (*found)[index]) {
            std::printf("  %.4f  %s\n", static_cast<double>(one.probability), one.label.c_str());
        }
    }
    return Status();
}

// The array of each input, in the model's order.
Status ReadInputs(Model const& model, std::vector<std::string> const& files, std::vector<Array>& arrays) {
    std::vector<TensorInfo> const inputs = model.Inputs();
    std::vector<std::string> paths(inputs.size());
    size_t next = 0;
    for (std::string const& file : files) {
        size_t const equals = file.find('=');
        auto const named = std::find_if(inputs.begin(), inputs.end(), [&](TensorInfo const& input) {
            return equals != file.npos && input.name == file.substr(0, equals);
        });
        size_t const place = named != inputs.end() ? static_cast<size_t>(named - inputs.begin()) : next++;
        if (place >= inputs.size() || !paths[place].empty()) {
            return Wrong("EF852", Text(file, ": the model has ", inputs.size(), " inputs, and each takes one array"));
        }
        paths[place] = named != inputs.end() ? file.substr(equals + 1) : file;
    }
    for (size_t index = 0; index < inputs.size(); ++index) {
        if (paths[index].empty()) {
            return Wrong("EF852", Text("there is no array for the input `", inputs[index].name, "`: give ",
                                       inputs[index].name, "=FILE.npy"));
        }
        Result<Array> array = ReadNpy(paths[index]);
        if (!array) {
            return array.status();
        }
        arrays.push_back(*std::move(array));
    }
    return Status();
}

Status WriteOutputs(std::vector<TensorInfo> const& outputs, std::vector<Array> const& arrays,
                    std::string const& folder) {
    if (!folder.empty() && mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST) {
        return Wrong("EF102", Text(folder, ": cannot be made: ", std::strerror(errno)));
    }
    for (size_t index = 0; index < arrays.size(); ++index) {
        std::string name = outputs[index].name;
        // Names of tensors are often paths.
        std::replace(name.begin(), name.end(), '/', '_');
        std::string const path = folder.empty() ? "" : folder + "/" + name + ".npy";
        if (!path.empty()) {
            Status const status = WriteNpy(path, arrays[index]);
            if (!status) {
                return status;
            }
        }
        std::printf("%s, %s %s%s\n", outputs[index].name.c_str(), NameOf(arrays[index].type),
                    ShapeText(arrays[index].shape).c_str(), path.empty() ? "" : (" in " + path).c_str());
    }
    return Status();
}

Status RunArrays(Model& model, Options const& options) {
    std::vector<Array> arrays;
    Status const status = ReadInputs(model, options.files, arrays);
    if (!status) {
        return status;
    }
    std::vector<EdgeformerTensor> inputs;
    for (Array& array : arrays) {
        inputs.push_back(TensorAt(array.bytes.data(), array.bytes.size(), array.type, array.shape));
    }
    auto const outputs = model.Run(inputs);
    return outputs ? WriteOutputs(model.Outputs(), *outputs, options.output) : outputs.status();
}

Status Run(Options const& options) {
    auto const all = [&](char const* ending) {
        return std::all_of(options.files.begin(), options.files.end(),
                           [&](std::string const& file) { return EndsWith(file, ending); });
    };
    bool const are_arrays = all(".npy");
    if (!are_arrays && !all(".ppm")) {
        return Wrong("EF852", "the files are neither all pictures (.ppm) nor all arrays (.npy)");
    }
    auto model = Model::Load(options.model, options.load);
    if (!model) {
        return model.status();
    }
    if (options.files.empty()) {
        Describe(*model);
        return Status();
    }
    return are_arrays ? RunArrays(*model, options) : Classify(*model, options);
}

}  // namespace
}  // namespace edgeformer::tools

int main(int argc, char** argv) {
    using namespace edgeformer::tools;
    std::vector<std::string> const words(argv + 1, argv + argc);
    auto const has = [&](char const* word) { return std::find(words.begin(), words.end(), word) != words.end(); };
    if (has("--help") || has("-h")) {
        std::fputs(kUsage, stdout);
        return 0;
    }
    if (has("--version")) {
        std::printf("edgeformer-run %s\n", edgeformerVersion());
        return 0;
    }
    Options options;
    edgeformer::Status status = ReadOptions(words, options);
    if (status) {
        status = Run(options);
    }
    if (!status) {
        std::fprintf(stderr, "edgeformer-run: %s\n", status.error().c_str());
    }
    return ExitCodeOf(status);
}
