/* embed BUNDLE: describes a model, and runs it once on zeros into memory of its own. C99. */
#include <edgeformer/edgeformer.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(char const* what) {
    fprintf(stderr, "%s: %s\n", what, edgeformerLastError());
    return 1;
}

static size_t bytes_of_type(int32_t type) {
    switch (type) {
        case EDGEFORMER_FLOAT32:
        case EDGEFORMER_INT32: return 4;
        case EDGEFORMER_FLOAT16:
        case EDGEFORMER_BFLOAT16: return 2;
        case EDGEFORMER_INT64: return 8;
        default: return 1;
    }
}

/* A tensor of one image with the shape that the model says, zeros in memory that the GPU reaches where there is one. */
static int allocate(struct EdgeformerModel* model, struct EdgeformerTensorInfo const* info,
                    struct EdgeformerTensor* tensor) {
    int axis;
    memset(tensor, 0, sizeof(*tensor));
    tensor->struct_size = sizeof(*tensor);
    tensor->type = info->type;
    tensor->rank = info->rank;
    tensor->bytes = bytes_of_type(info->type);
    for (axis = 0; axis < info->rank; ++axis) {
        tensor->shape[axis] = info->shape[axis] < 0 ? 1 : info->shape[axis];
        tensor->bytes *= (uint64_t)tensor->shape[axis];
    }
    if (edgeformerAllocate(model, tensor->bytes, &tensor->data) != EDGEFORMER_SUCCESS) {
        return failed("memory");
    }
    memset(tensor->data, 0, tensor->bytes);
    return 0;
}

int main(int argc, char** argv) {
    struct EdgeformerModel* model = NULL;
    struct EdgeformerModelInfo about = {0};
    struct EdgeformerTensorInfo info = {0};
    struct EdgeformerTensor input;
    struct EdgeformerTensor output;
    int status = 1;
    if (argc != 2) {
        fprintf(stderr, "usage: %s BUNDLE\n", argv[0]);
        return 2;
    }
    if (edgeformerLoad(argv[1], NULL, &model) != EDGEFORMER_SUCCESS) {
        return failed("load");
    }
    about.struct_size = sizeof(about);
    info.struct_size = sizeof(info);
    input.data = output.data = NULL;
    if (edgeformerDescribe(model, &about) != EDGEFORMER_SUCCESS || about.inputs != 1 || about.outputs != 1) {
        fprintf(stderr, "this example runs models with one input and one output\n");
    } else if (edgeformerTensor(model, 0, &info) != EDGEFORMER_SUCCESS || allocate(model, &info, &input) != 0 ||
               edgeformerTensor(model, 1, &info) != EDGEFORMER_SUCCESS || allocate(model, &info, &output) != 0) {
        failed("tensors");
    } else if (edgeformerRun(model, &input, 1, &output, 1) != EDGEFORMER_SUCCESS) {
        failed("run");
    } else {
        printf("%s, %s, %s %s\n", about.name, about.precision,
               about.backend == EDGEFORMER_TENSORRT ? "TensorRT" : "ONNX Runtime", about.backend_version);
        printf("%s:", info.name);
        if (info.type == EDGEFORMER_FLOAT32) {
            size_t index;
            for (index = 0; index < output.bytes / sizeof(float) && index < 10; ++index) {
                printf(" %.9g", (double)((float const*)output.data)[index]);
            }
        } else {
            printf(" %" PRIu64 " bytes", output.bytes);
        }
        printf("\n");
        status = 0;
    }
    edgeformerFree(model, input.data);
    edgeformerFree(model, output.data);
    edgeformerRelease(model);
    return status;
}
