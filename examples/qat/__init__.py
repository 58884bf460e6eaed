"""Quantization-aware training: ``biformer_nano`` from INT8 as it is rounded to INT8 as it was trained."""
