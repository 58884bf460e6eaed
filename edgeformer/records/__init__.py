"""What steps of the work found, as data: the manifest, ``--json`` and reports hold these records and nothing else.

They stand on a low floor, so that a machine without torch, ONNX and TensorRT can read them; the rooms above fill them.
"""
