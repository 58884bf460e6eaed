#include "classification.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "element_types.h"
#include "fault.h"

namespace edgeformer {
namespace {

// Pictures of one run where the model's batch has no upper end.
constexpr int64_t kBatch = 32;

// Classes of the first output.
int64_t ClassesOf(LoadedModel const& model) {
    TensorSpec const& output = model.tensor(model.inputs());
    bool const is_classifier = model.inputs() == 1 && model.bundle().task == "classification" &&
                               output.type == EDGEFORMER_FLOAT32 && output.shape.size() == 2 && output.shape[1] > 0;
    if (!is_classifier) {
        throw Fault(
            EDGEFORMER_INVALID_ARGUMENT, "EF766",
            Text(model.file(), " is no classifier: its task is \"", model.bundle().task, "\", it has ", model.inputs(),
                 model.inputs() == 1 ? " input" : " inputs", ", and its output is `", output.name, "` ",
                 ShapeText(output.shape), " of ", NameOf(output.type), "; run it, and read its outputs yourself"));
    }
    return output.shape[1];
}

void CheckTop(int32_t top, int64_t classes) {
    int64_t const most = std::min<int64_t>(classes, EDGEFORMER_MAX_TOP);
    if (top < 1 || top > most) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF101",
                    Text("got top=", top, " of ", classes, " classes; it must be 1 to ", most));
    }
}

// Runs a batch of prepared pictures and leaves out all outputs but the first.
void RunBatch(LoadedModel& model, std::vector<unsigned char>& input, int64_t batch, std::vector<float>& logits,
              int64_t classes) {
    TensorView const fed{model.images().ShapeFor(batch), input.data(), input.size(), EDGEFORMER_HOST};
    std::vector<TensorView> results;
    for (int index = 0; index < model.outputs(); ++index) {
        results.push_back({{}, nullptr, 0, EDGEFORMER_HOST});
    }
    results[0] = {{batch, classes}, logits.data(), logits.size() * sizeof(float), EDGEFORMER_HOST};
    Lease lease(model.pool());
    lease.context().Run({fed}, results);
}

}  // namespace

void TopClasses(float const* logits, int64_t classes, int32_t top, EdgeformerClass* results) {
    CheckTop(top, classes);
    std::vector<int64_t> order(static_cast<size_t>(classes));
    std::iota(order.begin(), order.end(), 0);
    auto const is_better = [logits](int64_t left, int64_t right) {
        bool const left_nan = std::isnan(logits[left]);
        bool const right_nan = std::isnan(logits[right]);
        if (left_nan != right_nan) {
            return right_nan;
        }
        return !left_nan && logits[left] != logits[right] ? logits[left] > logits[right] : left < right;
    };
    std::partial_sort(order.begin(), order.begin() + top, order.end(), is_better);
    auto const largest = static_cast<double>(logits[order[0]]);
    double sum = 0;
    for (int64_t index = 0; index < classes; ++index) {
        sum += std::exp(static_cast<double>(logits[index]) - largest);
    }
    for (int32_t rank = 0; rank < top; ++rank) {
        int64_t const index = order[static_cast<size_t>(rank)];
        double const weight = std::exp(static_cast<double>(logits[index]) - largest);
        results[rank] = {static_cast<int32_t>(index), static_cast<float>(weight / sum)};
    }
}

void Classify(LoadedModel& model, std::vector<EdgeformerImage> const& images, int32_t top, EdgeformerClass* results) {
    ImagePreparation& preparation = model.images();
    int64_t const classes = ClassesOf(model);
    CheckTop(top, classes);
    TensorSpec const& input = model.tensor(0);
    int64_t const fixed = input.shape[0];
    int64_t const most = fixed > 0 ? fixed : input.maximum[0] > 0 ? input.maximum[0] : kBatch;
    int64_t const least = std::max<int64_t>(1, fixed > 0 ? fixed : input.minimum[0]);
    auto const count = static_cast<int64_t>(images.size());
    std::vector<unsigned char> prepared;
    std::vector<float> logits;
    for (int64_t first = 0; first < count; first += most) {
        int64_t const taken = std::min(most, count - first);
        // Where the model runs no batch as small as that, zeros fill it up.
        int64_t const batch = std::max(taken, least);
        prepared.assign(static_cast<size_t>(batch) * preparation.bytes(), 0);
        logits.resize(static_cast<size_t>(batch * classes));
        for (int64_t index = 0; index < taken; ++index) {
            preparation.Prepare(images[static_cast<size_t>(first + index)],
                                prepared.data() + static_cast<size_t>(index) * preparation.bytes());
        }
        RunBatch(model, prepared, batch, logits, classes);
        for (int64_t index = 0; index < taken; ++index) {
            TopClasses(logits.data() + index * classes, classes, top, results + (first + index) * top);
        }
    }
}

}  // namespace edgeformer
