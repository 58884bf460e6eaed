#include "preprocessing/kernel_image.h"

#ifdef EDGEFORMER_KERNEL_IMAGE

// In the section that nvcc would put it into, so that cuobjdump finds it in the library.
asm(".pushsection .nv_fatbin,\"a\"\n"
    ".balign 16\n"
    ".globl edgeformer_kernel_image\n"
    ".hidden edgeformer_kernel_image\n"
    "edgeformer_kernel_image:\n"
    ".incbin \"" EDGEFORMER_KERNEL_IMAGE
    "\"\n"
    ".popsection\n");

extern "C" __attribute__((visibility("hidden"))) unsigned char const edgeformer_kernel_image[];

namespace edgeformer::preprocessing {

void const* KernelImage() noexcept { return edgeformer_kernel_image; }
char const* KernelArchitectures() noexcept { return EDGEFORMER_KERNEL_ARCHITECTURES; }

}  // namespace edgeformer::preprocessing

#else

namespace edgeformer::preprocessing {

void const* KernelImage() noexcept { return nullptr; }
char const* KernelArchitectures() noexcept { return "no GPU"; }

}  // namespace edgeformer::preprocessing

#endif
