#include "tensorrt/output_allocator.h"

#include "common/text.h"
#include "tensorrt/loaded_engine.h"

namespace edgeformer::tensorrt {

// IOutputAllocator, version 1.0: the language (0: C++), what it is, the destructor, and then its methods.
class OutputAllocator::Interface {
public:
    struct Info {
        char const* kind;
        int32_t major;
        int32_t minor;
    };

    explicit Interface(OutputAllocator& allocator) : allocator_(allocator) {}
    virtual int32_t Language() const noexcept { return 0; }
    virtual Info Description() const noexcept { return {"IOutputAllocator", 1, 0}; }
    virtual ~Interface() = default;

protected:
    OutputAllocator& allocator_;
};

// Of TensorRT 10 and 11.
class OutputAllocator::PlainInterface final : public Interface {
public:
    using Interface::Interface;
    virtual void* Reallocate(char const*, void*, uint64_t bytes, uint64_t alignment) noexcept {
        return allocator_.Reallocate(bytes, alignment);
    }
    virtual void* ReallocateAsync(char const*, void*, uint64_t bytes, uint64_t alignment, void*) noexcept {
        return allocator_.Reallocate(bytes, alignment);
    }
    virtual void NotifyShape(char const*, Dims const& shape) noexcept { allocator_.Notify(shape); }
};

// Of TensorRT-RTX.
class OutputAllocator::AsyncInterface final : public Interface {
public:
    using Interface::Interface;
    virtual void* ReallocateAsync(char const*, void*, uint64_t bytes, uint64_t alignment, void*) noexcept {
        return allocator_.Reallocate(bytes, alignment);
    }
    virtual void NotifyShape(char const*, Dims const& shape) noexcept { allocator_.Notify(shape); }
};

OutputAllocator::OutputAllocator(Abi const& abi, Cuda& cuda) : cuda_(cuda) {
    if (abi.plain_reallocation) {
        interface_ = std::make_unique<PlainInterface>(*this);
    } else {
        interface_ = std::make_unique<AsyncInterface>(*this);
    }
}

OutputAllocator::~OutputAllocator() = default;

void* OutputAllocator::interface() noexcept { return interface_.get(); }

void OutputAllocator::Begin(void* memory, uint64_t bytes) noexcept {
    given_ = memory;
    given_bytes_ = bytes;
    memory_ = nullptr;
    is_told_ = false;
    problem_.clear();
}

void* OutputAllocator::Reallocate(uint64_t bytes, uint64_t alignment) noexcept {
    bool const is_aligned = alignment == 0 || reinterpret_cast<uintptr_t>(given_) % alignment == 0;
    if (given_ != nullptr && bytes <= given_bytes_ && is_aligned) {
        return memory_ = given_;
    }
    try {
        if (own_bytes_ < bytes) {
            own_bytes_ = 0;
            own_ = DeviceMemory();
            own_ = DeviceMemory(cuda_, cuda_.AllocateDevice(bytes));
            own_bytes_ = bytes;
        }
        return memory_ = own_.get();
    } catch (CudaFault const& fault) {
        problem_ = fault.reason();
    } catch (...) {
        problem_ = "the host's memory has run out";
    }
    return memory_ = nullptr;
}

void OutputAllocator::Notify(Dims const& shape) noexcept {
    try {
        shape_ = ShapeOf(shape);
        is_told_ = true;
    } catch (...) {
        problem_ = "the host's memory has run out";
    }
}

}  // namespace edgeformer::tensorrt
