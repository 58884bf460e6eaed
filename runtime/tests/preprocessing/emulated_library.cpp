// The preprocessing behind a C interface, for pytest: there it meets Pillow and edgeformer/data/preprocessing.py.
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulated_launch.h"

namespace {

using namespace edgeformer::preprocessing;

std::string message;

}  // namespace

extern "C" {

__attribute__((visibility("default"))) char const* preprocessingMessage() { return message.c_str(); }

// Prepares an image, on the host or with the emulated kernel. Structs as in preprocessing.h. Returns 0, or 1 with a
// message.
__attribute__((visibility("default"))) int32_t preprocess(Settings const* settings, Source const* source,
                                                          void const* pixels, void const* chroma, int32_t on_device,
                                                          void* output, size_t output_bytes) {
    try {
        Plan const plan(*settings, *source);
        if (plan.OutputBytes() != output_bytes) {
            throw std::logic_error("the output has " + std::to_string(plan.OutputBytes()) + " bytes");
        }
        if (on_device != 0) {
            cudaError_t const status = Launch(plan, {pixels, chroma}, plan.Tables(), output, nullptr);
            if (status != cudaSuccess) {
                throw std::runtime_error(cudaGetErrorName(status));
            }
            return 0;
        }
        // Whatever is in the workspace must not matter.
        std::vector<unsigned char> workspace(plan.WorkspaceBytes() + Plan::kWorkspaceAlignment, 0xa5);
        auto const address = reinterpret_cast<uintptr_t>(workspace.data());
        plan.RunOnHost({pixels, chroma}, output,
                       workspace.data() + (Plan::kWorkspaceAlignment - address % Plan::kWorkspaceAlignment));
        return 0;
    } catch (std::exception const& error) {
        message = error.what();
        return 1;
    }
}
}
