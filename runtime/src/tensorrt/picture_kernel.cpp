#include "tensorrt/picture_kernel.h"

#include <utility>

#include "common/text.h"
#include "fault.h"
#include "preprocessing/kernel_image.h"
#include "preprocessing/launch.h"

namespace edgeformer::tensorrt {

using preprocessing::KernelArchitectures;
using preprocessing::KernelImage;
using preprocessing::Pixels;

PictureKernel::PictureKernel(std::shared_ptr<LoadedEngine> engine) : engine_(std::move(engine)) {
    if (KernelImage() == nullptr) {
        throw Fault(EDGEFORMER_UNAVAILABLE, "EF776",
                    "this libedgeformer.so was built without nvcc, and prepares pictures on the host alone: build it "
                    "where there is a CUDA toolkit, or use edgeformerPreprocess");
    }
    Cuda& cuda = engine_->cuda();
    ContextScope const scope(cuda, engine_->cuda_context());
    try {
        module_ = Module(cuda, cuda.LoadModule(KernelImage()));
    } catch (CudaFault const& fault) {
        throw Fault(
            EDGEFORMER_UNAVAILABLE, "EF776",
            Text("the kernel that prepares pictures cannot be loaded on ", engine_->platform().DeviceText(), " with ",
                 engine_->platform().DriverText(), " (", fault.reason(), "). This libedgeformer.so has it for ",
                 KernelArchitectures(),
                 ": install a newer driver, or build the library for this GPU (EDGEFORMER_CUDA_ARCHITECTURES)"));
    }
}

PictureKernel::~PictureKernel() {
    try {
        ContextScope const scope(engine_->cuda(), engine_->cuda_context());
        Module const ending = std::move(module_);
    } catch (...) {
        // The driver is in error: nothing can be freed any more.
    }
}

void* PictureKernel::Find(char const* name) const { return engine_->cuda().KernelOf(module_.get(), name); }

PicturePreparation::PicturePreparation(std::shared_ptr<PictureKernel const> kernel,
                                       std::shared_ptr<preprocessing::Plan const> plan)
    : kernel_(std::move(kernel)), plan_(std::move(plan)) {
    ContextScope const scope(cuda(), kernel_->engine().cuda_context());
    DeviceMemory tables(cuda(), cuda().AllocateDevice(plan_->TableBytes()));
    Stream const stream(cuda(), cuda().CreateStream());
    cuda().CopyToDevice(tables.get(), plan_->Tables(), plan_->TableBytes(), stream.get());
    cuda().Synchronize(stream.get());
    preprocessing::Arguments const arguments = plan_->ArgumentsFor({}, nullptr, nullptr);
    function_ = kernel_->Find(preprocessing::LaunchPlanOf(arguments).kernel);
    tables_ = std::move(tables);
}

PicturePreparation::~PicturePreparation() {
    try {
        ContextScope const scope(cuda(), kernel_->engine().cuda_context());
        DeviceMemory const ending = std::move(tables_);
    } catch (...) {
        // The driver is in error: nothing can be freed any more.
    }
}

void* PicturePreparation::Reached(void const* memory, char const* what) const {
    void* const address = cuda().DeviceAddress(memory);
    if (address == nullptr) {
        throw Fault(EDGEFORMER_INVALID_ARGUMENT, "EF777",
                    Text(what, ", at ", memory,
                         ", is in memory that the GPU does not reach: copy it to device memory, let edgeformerAllocate "
                         "allocate it, or prepare the picture on the host (edgeformerPreprocess)"));
    }
    return address;
}

void PicturePreparation::Enqueue(std::vector<Pixels> const& pictures, TensorView const& input, void* stream) {
    ContextScope const scope(cuda(), kernel_->engine().cuda_context());
    auto* output = static_cast<unsigned char*>(Reached(input.data, "the input"));
    auto const element_bytes = static_cast<uintptr_t>(plan_->ArgumentsFor({}, nullptr, nullptr).element_bytes);
    if (reinterpret_cast<uintptr_t>(output) % element_bytes != 0) {
        throw Fault(
            EDGEFORMER_INVALID_ARGUMENT, "EF777",
            Text("the input, at ", input.data, ", is not aligned to its elements of ", element_bytes, " bytes"));
    }
    // All of them before the first launch: a call that is refused has enqueued nothing.
    std::vector<preprocessing::Arguments> launches;
    launches.reserve(pictures.size());
    for (Pixels const& picture : pictures) {
        Pixels reached;
        reached.data = Reached(picture.data, "a picture");
        reached.chroma = picture.chroma != nullptr ? Reached(picture.chroma, "a picture's chroma") : nullptr;
        launches.push_back(plan_->ArgumentsFor(reached, tables_.get(), output));
        output += plan_->OutputBytes();
    }
    for (preprocessing::Arguments const& arguments : launches) {
        cuda().LaunchKernel(function_, preprocessing::LaunchPlanOf(arguments).blocks, preprocessing::kThreads,
                            preprocessing::kSharedBytes, stream, &arguments);
    }
}

}  // namespace edgeformer::tensorrt
