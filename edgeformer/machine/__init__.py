"""What this machine has to build and run engines with: GPUs, TensorRT, and how both get the plugin library."""
