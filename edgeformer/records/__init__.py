"""What the stages found, as data: the manifest, ``--json`` and reports are made of these records.

They need no torch, ONNX or TensorRT, so that any machine can read them; the rooms above fill them.
"""
