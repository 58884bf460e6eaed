"""A small one-stage detector with two BRA blocks: from PyTorch to a bundle, Python and C++."""
