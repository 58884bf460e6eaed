// Pictures that lie in device memory, prepared by the kernel (preprocessing/resize.cu).
#pragma once

#include <memory>
#include <vector>

#include "backend.h"
#include "tensorrt/loaded_engine.h"
#include "tensorrt/memory.h"

namespace edgeformer::tensorrt {

// The compiled kernel, loaded for an engine's GPU. It keeps the engine's CUDA context alive.
class PictureKernel {
public:
    // Throws Fault EF776: the library has none for this GPU.
    explicit PictureKernel(std::shared_ptr<LoadedEngine> engine);
    ~PictureKernel();
    PictureKernel(PictureKernel const&) = delete;
    PictureKernel& operator=(PictureKernel const&) = delete;

    LoadedEngine const& engine() const noexcept { return *engine_; }
    void* Find(char const* name) const;

private:
    std::shared_ptr<LoadedEngine> const engine_;
    Module module_;
};

// Its tables are on the device from the beginning, so that a launch is all that remains to be done.
class PicturePreparation final : public DevicePreparation {
public:
    PicturePreparation(std::shared_ptr<PictureKernel const> kernel, std::shared_ptr<preprocessing::Plan const> plan);
    ~PicturePreparation() override;

    void Enqueue(std::vector<preprocessing::Pixels> const& pictures, TensorView const& input, void* stream) override;

private:
    Cuda& cuda() const noexcept { return kernel_->engine().cuda(); }
    void* Reached(void const* memory, char const* what) const;

    std::shared_ptr<PictureKernel const> const kernel_;
    std::shared_ptr<preprocessing::Plan const> const plan_;
    DeviceMemory tables_;
    void* function_ = nullptr;
};

}  // namespace edgeformer::tensorrt
