"""A small one-stage detector with two BRA blocks: made, exported, fused, quantized, built, and run from Python and C++."""
