/* What every C interface of libedgeformer_plugins.so shares: the status that its functions return, and why they failed.
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
    EDGEFORMER_INTERNAL_ERROR = 4       /* host memory has run out */
};

/* Why calls have failed, and TensorRT's calls of the plugin with them: the messages of all threads since the last call
 * of this function, at most 32, oldest first, one a line. Writes as much as `capacity` bytes hold, with a terminating
 * zero, into `buffer`, which may be null, and returns the length of the whole text. */
EDGEFORMER_API size_t edgeformerTakeErrors(char* buffer, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
