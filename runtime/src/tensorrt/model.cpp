#include "tensorrt/model.h"

#include <utility>

#include "tensorrt/execution.h"

namespace edgeformer::tensorrt {
namespace {

class TensorRtModel final : public BackendModel {
public:
    explicit TensorRtModel(std::shared_ptr<LoadedEngine> engine) : engine_(std::move(engine)) {}

    std::vector<TensorSpec> const& tensors() const override { return engine_->tensors(); }
    std::string library() const override { return engine_->machine().library->path(); }
    std::string version() const override { return engine_->machine().library->VersionText(); }

    std::unique_ptr<BackendContext> CreateContext() override { return std::make_unique<Execution>(engine_); }

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
};

}  // namespace

std::unique_ptr<BackendModel> LoadEngine(Machine machine, void const* engine, size_t bytes, EngineOptions options) {
    return std::make_unique<TensorRtModel>(
        std::make_shared<LoadedEngine>(std::move(machine), engine, bytes, std::move(options)));
}

}  // namespace edgeformer::tensorrt
