"""How well edgeformer's INT8 keeps a network's outputs, beside the tools that users would take instead.

    python -m benchmarks.quantization [--quick]

| module | what it does |
|---|---|
| `subjects`, `photographs` | the checkpoints, trained in floating point alone, and what they are trained on |
| `degradations` | evaluation images as a worse camera gives them |
| `preparation` | a folder for each checkpoint: graphs, arrays, and what FP32 makes of them |
| `rows`, `tools/`, `child`, `running` | who quantizes how; a process and an environment of its own for each |
| `judge`, `multiply_adds` | the figures of a quantized file, from ONNX Runtime; they know nothing of who made it |
| `tables` | the JSON file, and the page that is made from it |

What other environments import (`judge`, `child`, `tools/`) needs NumPy and onnx alone, and no edgeformer.
"""
