"""Engines: the targets to build for, and the builder.

Importing this imports no TensorRT, which runs in a child process (`edgeformer.engine.worker`).
"""
