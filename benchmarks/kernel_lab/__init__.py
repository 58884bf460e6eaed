"""The fused kernels on a GPU, judged and timed: what `gpu_check.py` and `bench_kernels.py` beside it are made of.

Needs NumPy, torch, onnx, ml_dtypes and Pillow beside edgeformer's sources; pydantic, rich and matplotlib only to render
what was measured.
"""
