/* What every C interface of edgeformer shares: the status that its functions return. Why the kernels of
 * libedgeformer_plugins.so failed is edgeformerTakeErrors'; why the runtime did is in edgeformer.h.
 */
#ifndef EDGEFORMER_C_STATUS_H
#define EDGEFORMER_C_STATUS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEFORMER_API __attribute__((visibility("default")))

enum EdgeformerStatus {
    EDGEFORMER_SUCCESS = 0,
    EDGEFORMER_UNSUPPORTED_PROBLEM = 1, /* the problem, or a variant that cannot run it on this device */
    EDGEFORMER_INVALID_BUFFER = 2,      /* a pointer that is null or misaligned, a workspace that is too small */
    EDGEFORMER_CUDA_ERROR = 3,          /* no device, a failed launch, a context that an earlier fault has spoilt */
    EDGEFORMER_INTERNAL_ERROR = 4,      /* host memory has run out */
    EDGEFORMER_INVALID_ARGUMENT = 5,    /* of the runtime: a tensor or an option that the model does not take */
    EDGEFORMER_INVALID_BUNDLE = 6,      /* of the runtime: files that are missing, damaged or of something else */
    EDGEFORMER_UNAVAILABLE = 7,         /* of the runtime: this machine lacks a GPU, a driver or a library for it */
    EDGEFORMER_BACKEND_ERROR = 8,       /* of the runtime: TensorRT or ONNX Runtime failed */
    EDGEFORMER_BUSY = 9                 /* of the runtime: all contexts are in use */
};

/* Why calls have failed, and TensorRT's calls of the plugin with them: the messages of all threads since the last call
 * of this function, at most 32, oldest first, one a line. Writes as much as `capacity` bytes hold, with a terminating
 * zero, into `buffer`, which may be null, and returns the length of the whole text. */
EDGEFORMER_API size_t edgeformerTakeErrors(char* buffer, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
