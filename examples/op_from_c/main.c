/* Bi-level routing attention from C, without TensorRT and without Python: how much workspace a problem needs, which
 * kernel a GPU would run it with, what a refusal looks like, and, where there is a GPU, one run of the op. */
#include <edgeformer/bi_level_routing_attention.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef HAVE_CUDA_RUNTIME
#include <cuda_runtime_api.h>
#include <math.h>
#endif

typedef struct EdgeformerBiLevelRoutingAttentionProblem Problem;
typedef struct EdgeformerBiLevelRoutingAttentionWorkspace Workspace;
typedef struct EdgeformerBiLevelRoutingAttentionPlan Plan;

static char const* const variants[] = {"automatic", "plain", "gather", "resident"};

/* Stage 1 of BiFormer at 224 x 224. */
static Problem attention_of_stage_1(void) {
    Problem problem = {0};
    problem.struct_size = sizeof problem;
    problem.input_type = EDGEFORMER_FLOAT16;
    problem.output_type = EDGEFORMER_FLOAT16;
    problem.batch = 1;
    problem.height = 56;
    problem.width = 56;
    problem.num_heads = 2;
    problem.regions = 7;
    problem.topk = 1;
    problem.qk_dim = 64;
    problem.dim = 64;
    problem.scale = 0.125f; /* qk_dim to the power of -0.5 */
    return problem;
}

/* Every function returns an EdgeformerStatus; what was wrong is a text. */
static void require_success(int32_t status, char const* action) {
    if (status != EDGEFORMER_SUCCESS) {
        char message[1024];
        edgeformerTakeErrors(message, sizeof message);
        fprintf(stderr, "%s: status %" PRId32 ": %s\n", action, status, message);
        exit(EXIT_FAILURE);
    }
}

static void print_plan(Problem const* problem) {
    struct EdgeformerDevice orin = {sizeof orin, 87, 163 * 1024, 16};
    Plan plan = {0};
    plan.struct_size = sizeof plan;
    require_success(edgeformerBiLevelRoutingAttentionPlan(problem, &orin, &plan), "plan");
    printf("plan for Jetson AGX Orin: %s, %" PRId64 " blocks of %" PRId32 " warps, %" PRId32
           " bytes of shared memory\n",
           variants[plan.variant], plan.blocks, plan.warps, plan.shared_bytes);
}

static void print_refusal(Problem problem) {
    char message[1024];
    Workspace layout = {0};
    layout.struct_size = sizeof layout;
    problem.topk = 50; /* of 49 regions */
    int32_t const status = edgeformerBiLevelRoutingAttentionWorkspace(&problem, &layout);
    edgeformerTakeErrors(message, sizeof message);
    printf("topk=50: status %" PRId32 ": %s\n", status, message);
}

#ifdef HAVE_CUDA_RUNTIME
static void require_cuda(cudaError_t error, char const* action) {
    if (error != cudaSuccess) {
        fprintf(stderr, "%s: %s\n", action, cudaGetErrorString(error));
        exit(EXIT_FAILURE);
    }
}

/* Queries and keys of any kind, and values that are the same at every token: whatever a query attends to, its output is
 * that value. */
static float value_of_channel(int32_t channel) { return (float)channel / 16 - 2; }

static void run(Problem problem, Workspace const* layout) {
    int devices = 0;
    cudaError_t const found = cudaGetDeviceCount(&devices);
    if (found != cudaSuccess || devices == 0) {
        printf("not run: no GPU (%s)\n", found != cudaSuccess ? cudaGetErrorString(found) : "no device");
        return;
    }
    problem.input_type = problem.output_type = EDGEFORMER_FLOAT32; /* C has no type for 16 bits */
    size_t const tokens = (size_t)problem.batch * problem.height * problem.width;
    int32_t const channels = 2 * problem.qk_dim + problem.dim;
    size_t const input_bytes = tokens * channels * sizeof(float);
    size_t const output_bytes = tokens * problem.dim * sizeof(float);
    float* const host_input = malloc(input_bytes);
    float* const host_output = malloc(output_bytes);
    if (host_input == NULL || host_output == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(EXIT_FAILURE);
    }
    for (size_t token = 0; token < tokens; ++token) {
        for (int32_t channel = 0; channel < channels; ++channel) {
            int32_t const value = channel - 2 * problem.qk_dim;
            host_input[token * channels + channel] =
                value >= 0 ? value_of_channel(value) : (float)((token * 7 + channel * 13) % 31) / 31;
        }
    }

    void *input, *output, *workspace; /* cudaMalloc aligns to 256 bytes, which is what the workspace needs */
    require_cuda(cudaMalloc(&input, input_bytes), "memory for qkv");
    require_cuda(cudaMalloc(&output, output_bytes), "memory for the output");
    require_cuda(cudaMalloc(&workspace, layout->bytes), "memory for the workspace");
    require_cuda(cudaMemcpy(input, host_input, input_bytes, cudaMemcpyHostToDevice), "copying qkv");
    require_success(
        edgeformerBiLevelRoutingAttention(&problem, input, NULL, NULL, output, workspace, layout->bytes, NULL), "run");
    require_cuda(cudaMemcpy(host_output, output, output_bytes, cudaMemcpyDeviceToHost), "running the op");

    float largest = 0;
    for (size_t index = 0; index < tokens * problem.dim; ++index) {
        largest = fmaxf(largest, fabsf(host_output[index] - value_of_channel(index % problem.dim)));
    }
    printf("run: %zu tokens, largest error %g\n", tokens, largest);
    cudaFree(input);
    cudaFree(output);
    cudaFree(workspace);
    free(host_input);
    free(host_output);
    if (!(largest < 1e-5f)) {
        exit(EXIT_FAILURE);
    }
}
#else
static void run(Problem problem, Workspace const* layout) {
    (void)problem;
    (void)layout;
    printf("not run: no GPU (built without the CUDA runtime)\n");
}
#endif

int main(void) {
    Problem const problem = attention_of_stage_1();
    Workspace layout = {0};
    layout.struct_size = sizeof layout;
    require_success(edgeformerBiLevelRoutingAttentionWorkspace(&problem, &layout), "workspace");
    printf("workspace: %" PRIu64 " bytes, routing at %" PRIu64 "\n", layout.bytes, layout.routing_offset);
    print_plan(&problem);
    print_refusal(problem);
    run(problem, &layout);
    return EXIT_SUCCESS;
}
