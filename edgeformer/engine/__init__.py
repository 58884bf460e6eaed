"""Engines: targets, the two TensorRT flavours, the plugin library, and the builder that joins them.

Nothing here imports TensorRT when it is imported; TensorRT itself runs in a child process (`edgeformer.engine.worker`).
"""
