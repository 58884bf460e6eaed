/* The element types that every C interface of edgeformer shares. The numbers never change their meaning. */
#ifndef EDGEFORMER_C_TYPES_H
#define EDGEFORMER_C_TYPES_H

#ifdef __cplusplus
extern "C" {
#endif

enum EdgeformerType {
    EDGEFORMER_FLOAT32 = 0,
    EDGEFORMER_FLOAT16 = 1,
    EDGEFORMER_BFLOAT16 = 2,
    EDGEFORMER_INT8 = 3,
    EDGEFORMER_UINT8 = 4,
    EDGEFORMER_INT32 = 5,
    EDGEFORMER_INT64 = 6,
    EDGEFORMER_BOOL = 7
};

#ifdef __cplusplus
}
#endif

#endif
