#include "tensorrt/tensorrt.h"

#include <mutex>
#include <utility>

#include "fault.h"
#include "tensorrt/execution.h"
#include "tensorrt/loading.h"
#include "tensorrt/picture_kernel.h"

namespace edgeformer {
namespace tensorrt {
namespace {

class TensorRtModel final : public BackendModel {
public:
    explicit TensorRtModel(std::shared_ptr<LoadedEngine> engine) : engine_(std::move(engine)) {}

    std::vector<TensorSpec> const& tensors() const override { return engine_->tensors(); }
    std::string library() const override { return engine_->platform().library->path(); }
    std::string version() const override { return engine_->platform().library->VersionText(); }

    std::unique_ptr<BackendContext> CreateContext() override { return std::make_unique<Execution>(engine_); }

    std::unique_ptr<DevicePreparation> PrepareOnDevice(std::shared_ptr<preprocessing::Plan const> plan) override {
        {
            std::lock_guard const lock(loading_);
            if (kernel_ == nullptr) {
                kernel_ = std::make_shared<PictureKernel const>(engine_);
            }
        }
        return std::make_unique<PicturePreparation>(kernel_, std::move(plan));
    }

    void* Allocate(uint64_t bytes) override {
        ContextScope const scope(engine_->cuda(), engine_->cuda_context());
        return engine_->cuda().AllocateHost(bytes);
    }

    void Free(void* memory) noexcept override {
        try {
            ContextScope const scope(engine_->cuda(), engine_->cuda_context());
            engine_->cuda().FreeHost(memory);
        } catch (...) {
            // The driver is in error: nothing can be freed any more.
        }
    }

private:
    std::shared_ptr<LoadedEngine> const engine_;
    std::mutex loading_;
    std::shared_ptr<PictureKernel const> kernel_;  // once it was asked for; stays
};

Platform OpenPlatform(TensorRtRequest const& request, std::shared_ptr<Cuda> cuda, int device, Machine* machine) {
    Platform platform;
    platform.cuda = std::move(cuda);
    platform.device_index = device;
    if (platform.cuda != nullptr) {
        try {
            platform.driver_version = platform.cuda->DriverVersion();
            platform.device = platform.cuda->DeviceAt(device);
        } catch (CudaFault const& fault) {
            machine->gpu_problem = fault.reason();
        }
    }
    platform.library = Library::Open(request, &machine->library_problem);
    machine->driver_cuda = platform.driver_version;
    machine->sm = platform.device.sm;
    if (platform.library != nullptr) {
        bool const rtx = platform.library->abi().flavour == Flavour::kTensorRtRtx;
        machine->library = platform.library->path();
        machine->flavour = rtx ? "tensorrt_rtx" : "tensorrt";
        machine->tensorrt_version = platform.library->VersionText();
    }
    if (!request.version.empty() && ReleaseOf(request.version) != ReleaseOf(machine->tensorrt_version)) {
        machine->others = Library::Others(machine->library);
    }
    return platform;
}

}  // namespace

Machine FindMachine(TensorRtRequest const& request, std::shared_ptr<Cuda> cuda, int device, Platform* platform) {
    Machine machine;
    *platform = OpenPlatform(request, std::move(cuda), device, &machine);
    return machine;
}

std::shared_ptr<BackendModel> LoadEngine(EngineRequest request, Platform platform) {
    return std::make_shared<TensorRtModel>(std::make_shared<LoadedEngine>(std::move(platform), std::move(request)));
}

}  // namespace tensorrt

Machine FindMachine(TensorRtRequest const& request, int device) {
    std::string problem;
    std::shared_ptr<tensorrt::Cuda> const cuda = tensorrt::OpenCuda(&problem);
    tensorrt::Platform platform;
    Machine machine = tensorrt::FindMachine(request, cuda, device, &platform);
    if (cuda == nullptr) {
        machine.gpu_problem = problem;
    }
    return machine;
}

std::shared_ptr<BackendModel> LoadEngine(EngineRequest request, Machine const& machine) {
    // Opened a second time: the driver and the library stay loaded, so that costs little.
    std::string problem;
    tensorrt::Platform platform;
    int const device = request.device;
    CheckMachine(
        tensorrt::FindMachine({machine.flavour, "", machine.library}, tensorrt::OpenCuda(&problem), device, &platform));
    return tensorrt::LoadEngine(std::move(request), std::move(platform));
}

}  // namespace edgeformer
