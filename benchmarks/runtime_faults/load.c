/* load BUNDLE IMAGES: loads an engine, runs it on this many images, 0 for none. Prints the milliseconds that took, then
 * why it failed, or "ran". */
#include <edgeformer/edgeformer.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static struct EdgeformerTensor tensor(int64_t images, int32_t rank, int64_t elements) {
    struct EdgeformerTensor made = {0};
    made.struct_size = sizeof(made);
    made.type = EDGEFORMER_FLOAT32;
    made.rank = rank;
    made.shape[0] = images;
    made.bytes = (uint64_t)(images * elements) * sizeof(float);
    made.data = calloc(1, made.bytes);
    return made;
}

static int32_t load_and_run(char const* path, int64_t images) {
    struct EdgeformerLoadOptions options = {0};
    struct EdgeformerModel* model = NULL;
    int32_t status;
    options.struct_size = sizeof(options);
    options.backend = EDGEFORMER_TENSORRT;
    options.trust_bundle = 1;
    status = edgeformerLoad(path, &options, &model);
    if (status == EDGEFORMER_SUCCESS && images > 0) {
        struct EdgeformerTensor input = tensor(images, 4, 12);
        struct EdgeformerTensor output = tensor(images, 2, 5);
        input.shape[1] = 3, input.shape[2] = 2, input.shape[3] = 2;
        output.shape[1] = 5;
        status = edgeformerRun(model, &input, 1, &output, 1);
        free(input.data);
        free(output.data);
    }
    edgeformerRelease(model);
    return status;
}

int main(int argc, char** argv) {
    double before;
    int32_t status;
    if (argc != 3) {
        return 2;
    }
    before = milliseconds();
    status = load_and_run(argv[1], atoi(argv[2]));
    printf("%.3f\n%s\n", milliseconds() - before, status == EDGEFORMER_SUCCESS ? "ran" : edgeformerLastError());
    return 0;
}
