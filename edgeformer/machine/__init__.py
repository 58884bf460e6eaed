"""What this machine has for building and running engines: GPUs, TensorRT, and the plugin library that both need."""
