/* Runs bundles that `edgeformer build` made, engines and ONNX files: the C interface of libedgeformer.so. C++ programs
 * take <edgeformer/model.hpp>, which is this interface with RAII.
 *
 *     struct EdgeformerModel* model = NULL;
 *     if (edgeformerLoad("bundle", NULL, &model) != EDGEFORMER_SUCCESS) {
 *         fprintf(stderr, "%s\n", edgeformerLastError());
 *     }
 *
 * A model is run by one of two backends: TensorRT (libnvinfer of TensorRT 10 or 11, or libtensorrt_rtx) on an NVIDIA
 * GPU, or ONNX Runtime on the CPU. Neither is linked: the library is opened when a model is loaded, and looked for in
 * this order: EdgeformerLoadOptions; the environment variable EDGEFORMER_TENSORRT_LIBRARY,
 * EDGEFORMER_TENSORRT_RTX_LIBRARY or EDGEFORMER_ONNXRUNTIME_LIBRARY; what the process has loaded already, as Python's
 * wheels do; the system's (dlopen by the library's SONAME).
 *
 * Everything is checked before an engine is deserialized: an engine is code.
 *
 * Functions that can fail return an EdgeformerStatus; edgeformerLastError then has the reason, on the thread that made
 * the call. Nothing is thrown across this interface. Functions may be called from several threads at once, also on one
 * model; a context is for one thread at a time.
 *
 * Every struct begins with its size as the caller was compiled. Later versions only add fields at the end, whose zero
 * means what the versions before them did: an older caller's missing fields are taken as zero, and a newer caller's
 * fields that this library does not know must be zero.
 */
#ifndef EDGEFORMER_EDGEFORMER_H
#define EDGEFORMER_EDGEFORMER_H

#include <stddef.h>
#include <stdint.h>

#include "common/c_status.h"
#include "common/c_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEFORMER_MAX_RANK 8

/* A loaded model: immutable, shared by threads. */
struct EdgeformerModel;
/* One execution of a model at a time, with the memory that it needs. */
struct EdgeformerContext;

enum EdgeformerBackend {
    EDGEFORMER_ANY_BACKEND = 0, /* TensorRT where there are an engine and a GPU that can run it, else ONNX Runtime */
    EDGEFORMER_TENSORRT = 1,
    EDGEFORMER_ONNX_RUNTIME = 2
};

/* Which of a bundle's graphs ONNX Runtime runs. */
enum EdgeformerGraph {
    EDGEFORMER_TYPED_GRAPH = 0, /* typed.onnx: the precision that the bundle has */
    EDGEFORMER_FUSED_GRAPH = 1  /* fused.onnx: the precision of the exported model */
};

enum EdgeformerMemory {
    EDGEFORMER_HOST = 0,  /* any memory of the process */
    EDGEFORMER_DEVICE = 1 /* CUDA memory of the model's device; the TensorRT backend alone takes it */
};

struct EdgeformerLoadOptions {
    uint32_t struct_size;
    int32_t backend;      /* enum EdgeformerBackend */
    int32_t graph;        /* enum EdgeformerGraph */
    int32_t device;       /* CUDA device */
    int32_t contexts;     /* how many may run at once, 1 to 64; 0: 1 */
    int32_t threads;      /* of one run in ONNX Runtime; 0: one a core */
    int32_t cuda_graphs;  /* shapes of a context that are captured into CUDA graphs, at most; 0: none */
    int32_t trust_bundle; /* 1: you trust who made the bundle: its engine and plugin library are code, and run */
    char const* onnxruntime_library; /* paths of the backends' libraries; null: see above */
    char const* tensorrt_library;
    char const* tensorrt_rtx_library;
    char const* plugin_library; /* of an engine that is in no bundle; null: none. A bundle has its own */
    /* What the file at `path` holds, of a caller who has read and checked it: an engine, or an ONNX file, as its name
     * says. Only read, until the call returns. Null: the file is read, or the bundle. */
    void const* content;
    uint64_t content_bytes;
    /* 1: the plugin library that is embedded in an engine may run. Of an engine that is loaded with its bundle the
     * manifest says whether there is one. */
    int64_t embedded_plugin;
};

/* Loads a bundle (a folder), an engine or an ONNX file. Its files are checked against the hashes in the manifest, the
 * engine against this machine's GPU, driver and TensorRT.
 *
 *   path     not null
 *   options  null: all zero
 *   model    not null; set to the model, or to null where this fails. To be given to edgeformerRelease */
EDGEFORMER_API int32_t edgeformerLoad(char const* path, struct EdgeformerLoadOptions const* options,
                                      struct EdgeformerModel** model);

/* Frees a model; null is fine. Contexts that were acquired have been released before. */
EDGEFORMER_API void edgeformerRelease(struct EdgeformerModel* model);

/* What a model is. Texts belong to the model; those that a file does not tell are empty, never null. */
struct EdgeformerModelInfo {
    uint32_t struct_size;
    int32_t backend;             /* enum EdgeformerBackend: which one runs it */
    int32_t inputs;              /* tensors */
    int32_t outputs;             /* tensors */
    int32_t labels;              /* class labels */
    int32_t contexts;            /* that may run at once */
    int32_t takes_images;        /* 1: edgeformerPreprocess makes its input from pixels */
    int32_t device;              /* CUDA device, or -1 */
    char const* name;            /* of the network, such as "biformer_tiny" */
    char const* task;            /* "classification", "features" */
    char const* precision;       /* of what runs: "int8", "fp16", ... */
    char const* backend_library; /* path of the backend's library */
    char const* backend_version;
    char const* file;           /* that is run: an engine or an ONNX file */
    char const* backend_reason; /* why ONNX Runtime runs it, where a bundle's engine was hoped for */
    int64_t image_input;        /* index of the input that edgeformerPreprocess makes, where takes_images is 1 */
};

EDGEFORMER_API int32_t edgeformerDescribe(struct EdgeformerModel const* model, struct EdgeformerModelInfo* info);

/* An input or output. Where a model's batch or another size is free, `minimum`, `optimum` and `maximum` are its range;
 * ONNX files set none: their maximum is -1 there. An engine with several optimization profiles has the range of all of
 * them; a shape in between may fit none, and is refused then. */
struct EdgeformerTensorInfo {
    uint32_t struct_size;
    int32_t type; /* enum EdgeformerType */
    int32_t rank;
    int32_t is_input;
    char const* name;                   /* belongs to the model */
    int64_t shape[EDGEFORMER_MAX_RANK]; /* -1: free */
    int64_t minimum[EDGEFORMER_MAX_RANK];
    int64_t optimum[EDGEFORMER_MAX_RANK];
    int64_t maximum[EDGEFORMER_MAX_RANK];
};

/* The tensor of this index: inputs first, then outputs, each in the model's order. */
EDGEFORMER_API int32_t edgeformerTensor(struct EdgeformerModel const* model, int32_t index,
                                        struct EdgeformerTensorInfo* info);

/* The label of a class, which belongs to the model; null where the index has none. */
EDGEFORMER_API char const* edgeformerLabel(struct EdgeformerModel const* model, int32_t index);

/* A tensor of the caller's, dense and row-major. */
struct EdgeformerTensor {
    uint32_t struct_size;
    int32_t type;   /* enum EdgeformerType */
    int32_t memory; /* enum EdgeformerMemory */
    int32_t rank;
    int64_t shape[EDGEFORMER_MAX_RANK];
    void* data;                      /* inputs are only read */
    uint64_t bytes;                  /* that `data` has; at least what the shape takes */
    struct EdgeformerTensor* result; /* of an output: where a run tells what came out; null: nowhere */
};

/* The shapes that outputs have for these inputs: fills type, rank, shape and bytes of `outputs`, and leaves data and
 * memory as they are. Nothing is run, and the inputs' data is not looked at. Sizes that only a run can tell are -1, and
 * bytes 0 then; where an ONNX file tells no number of axes, the rank is 0, as of a scalar. */
EDGEFORMER_API int32_t edgeformerOutputShapes(struct EdgeformerModel* model, struct EdgeformerTensor const* inputs,
                                              int32_t input_count, struct EdgeformerTensor* outputs,
                                              int32_t output_count);

/* As edgeformerOutputShapes, on this context. That one takes a context of the pool for a moment, and would wait for
 * ever where the caller holds the last one. */
EDGEFORMER_API int32_t edgeformerContextOutputShapes(struct EdgeformerContext* context,
                                                     struct EdgeformerTensor const* inputs, int32_t input_count,
                                                     struct EdgeformerTensor* outputs, int32_t output_count);

/* Runs the model once and waits for it: takes a context of the pool, and waits for one where all are busy.
 *
 *   inputs   one for each of the model's inputs, in its order
 *   outputs  one for each of the model's outputs, in its order: memory that the results are written to. The shapes are
 *            checked where they are given (rank above 0). A null `data` leaves an output out
 *
 * An output's `result` is set to what came out: its type, real shape, data and bytes. It tells the size of an output
 * whose size only a run can tell, for which `bytes` is what `data` has room for; where that is too little, the call
 * fails and `result` has the shape and bytes that are needed, with null data. */
EDGEFORMER_API int32_t edgeformerRun(struct EdgeformerModel* model, struct EdgeformerTensor const* inputs,
                                     int32_t input_count, struct EdgeformerTensor const* outputs, int32_t output_count);

/* Takes a context of the pool, to be given to edgeformerReleaseContext.
 *
 *   wait_milliseconds  how long to wait where all are busy; -1: for ever. EDGEFORMER_BUSY when none came free */
EDGEFORMER_API int32_t edgeformerAcquireContext(struct EdgeformerModel* model, int32_t wait_milliseconds,
                                                struct EdgeformerContext** context);

/* Gives a context back; null is fine. What it enqueued has been passed by its stream before. */
EDGEFORMER_API void edgeformerReleaseContext(struct EdgeformerContext* context);

/* As edgeformerRun, on this context. An output with a `result` and null `data` stays in the context: `result` has its
 * data, in memory of the kind that the output's `memory` says, until the context runs again or is released. So outputs
 * of any size are had in one run. */
EDGEFORMER_API int32_t edgeformerRunContext(struct EdgeformerContext* context, struct EdgeformerTensor const* inputs,
                                            int32_t input_count, struct EdgeformerTensor const* outputs,
                                            int32_t output_count);

/* Enqueues one run on `stream`, a cudaStream_t of the model's device, and returns at once: nothing is allocated and
 * nothing synchronized once a shape has been seen. All tensors are in device memory and stay as they are until the
 * stream has passed the call. One context is enqueued on one stream at a time. Of an output whose size only a run can
 * tell, `result` is known when the call returns; TensorRT waits for it, and the context may allocate. The TensorRT
 * backend alone. */
EDGEFORMER_API int32_t edgeformerEnqueue(struct EdgeformerContext* context, struct EdgeformerTensor const* inputs,
                                         int32_t input_count, struct EdgeformerTensor const* outputs,
                                         int32_t output_count, void* stream);

/* What a context does about CUDA graphs, in words that belong to the context: "3 of 4 shapes captured", or why not. */
EDGEFORMER_API char const* edgeformerGraphState(struct EdgeformerContext* context);

/* Host memory that the GPU reaches: page-locked, and on GPUs that share the host's memory (Jetson) the same bytes, so
 * that runs copy nothing. Plain memory where no GPU runs the model. To be given to edgeformerFree before the model is
 * released. */
EDGEFORMER_API int32_t edgeformerAllocate(struct EdgeformerModel* model, uint64_t bytes, void** memory);
EDGEFORMER_API void edgeformerFree(struct EdgeformerModel* model, void* memory);

enum EdgeformerPixels {
    EDGEFORMER_RGB = 0,  /* 3 bytes a pixel */
    EDGEFORMER_BGR = 1,  /* 3 bytes a pixel, as OpenCV has them */
    EDGEFORMER_RGBA = 2, /* 4 bytes a pixel; alpha is dropped */
    EDGEFORMER_BGRA = 3,
    EDGEFORMER_NV12 = 4 /* a plane of luma, then a plane of U and V of half the height and width, rounded up */
};

/* How NV12 becomes RGB: limited range is 16 to 235 (240 for U and V), full is 0 to 255. */
enum EdgeformerYuvMatrix {
    EDGEFORMER_BT601_LIMITED = 0,
    EDGEFORMER_BT601_FULL = 1,
    EDGEFORMER_BT709_LIMITED = 2,
    EDGEFORMER_BT709_FULL = 3
};

/* A decoded picture: in host memory, or for edgeformerEnqueuePreprocess where the GPU reaches it. */
struct EdgeformerImage {
    uint32_t struct_size;
    int32_t pixels; /* enum EdgeformerPixels */
    int32_t width;
    int32_t height;
    int32_t orientation;   /* as EXIF numbers it, 1 to 8; 0: upright */
    int32_t yuv_matrix;    /* enum EdgeformerYuvMatrix, of NV12 */
    int64_t stride;        /* bytes from row to row; 0: no gap between rows */
    int64_t chroma_stride; /* of NV12's second plane; 0: no gap */
    void const* data;
    void const* chroma; /* NV12's second plane; null: right behind the first */
};

/* Makes the model's input from pictures, as training prepared them: turned upright, resized, cropped, normalized; equal
 * to the bit to what the Python package makes of them with Pillow.
 *
 *   images  `count` pictures, of any sizes
 *   input   host memory of the input's type with the shape [count, ...] of the model's input; rank 0: its shape is not
 *           checked */
EDGEFORMER_API int32_t edgeformerPreprocess(struct EdgeformerModel* model, struct EdgeformerImage const* images,
                                            int32_t count, struct EdgeformerTensor const* input);

/* Makes a model's input of pictures that lie in device memory, such as those of a hardware decoder, on the GPU: for
 * pictures of one size, format, orientation, stride and YUV matrix. */
struct EdgeformerPreprocessor;

/* Makes ready for pictures of one kind: computes the filters and brings them to the device, so that nothing of it is
 * left to edgeformerEnqueuePreprocess. The TensorRT backend alone.
 *
 *   image         the kind of picture; its data and chroma are not looked at
 *   preprocessor  not null; set to the preprocessor, or to null where this fails. To be given to
 *                 edgeformerReleasePreprocessor */
EDGEFORMER_API int32_t edgeformerCreatePreprocessor(struct EdgeformerModel* model, struct EdgeformerImage const* image,
                                                    struct EdgeformerPreprocessor** preprocessor);

/* Frees a preprocessor; null is fine. What it enqueued has been passed by its streams before, and its model has not
 * been released. */
EDGEFORMER_API void edgeformerReleasePreprocessor(struct EdgeformerPreprocessor* preprocessor);

/* As edgeformerPreprocess, on the GPU: enqueues one launch for each picture on `stream`, a cudaStream_t of the model's
 * device, and returns at once. Nothing is allocated, copied or synchronized, and a stream that is being captured is
 * fine. The result is equal to edgeformerPreprocess's to the bit. Threads may share a preprocessor.
 *
 *   images  `count` pictures of the preprocessor's kind, in device memory or in memory of edgeformerAllocate. They stay
 * as they are until the stream has passed the call input   memory of the same kinds, of the input's type with the shape
 * [count, ...] of the model's input; rank 0: its shape is not checked */
EDGEFORMER_API int32_t edgeformerEnqueuePreprocess(struct EdgeformerPreprocessor* preprocessor,
                                                   struct EdgeformerImage const* images, int32_t count,
                                                   struct EdgeformerTensor const* input, void* stream);

#define EDGEFORMER_MAX_TOP 1000

/* A class and its probability. */
struct EdgeformerClass {
    int32_t index;
    float probability;
};

/* The best classes of one image, best first: softmax over all of them, in double precision.
 *
 *   logits   float32, `classes` of them
 *   results  room for `top`, which is 1 to `classes`, and at most EDGEFORMER_MAX_TOP */
EDGEFORMER_API int32_t edgeformerTopClasses(float const* logits, int64_t classes, int32_t top,
                                            struct EdgeformerClass* results);

/* Classifies pictures: edgeformerPreprocess, edgeformerRun and edgeformerTopClasses in one, as often as the model's
 * largest batch makes it necessary. For a model with the task "classification" whose first output is float32
 * [batch, classes].
 *
 *   results  room for `count` * `top`: the classes of the first picture, best first, then those of the second, ... */
EDGEFORMER_API int32_t edgeformerClassify(struct EdgeformerModel* model, struct EdgeformerImage const* images,
                                          int32_t count, int32_t top, struct EdgeformerClass* results);

/* Why the calling thread's last call that failed did: "EF752: bundle: model.engine: changed since the build ...". It
 * stays until the thread's next failure; empty before the first. */
EDGEFORMER_API char const* edgeformerLastError(void);

/* The library's version, such as "0.1.0". */
EDGEFORMER_API char const* edgeformerVersion(void);

#ifdef __cplusplus
}
#endif

#endif
