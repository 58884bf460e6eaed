"""What `scripts/gpu_check` and `scripts/bench_kernels` are made of: the fused kernels on a GPU, judged and timed.

Needs NumPy, torch, onnx, ml_dtypes and Pillow beside edgeformer's sources; pydantic, rich and matplotlib only to render
what was measured.
"""
