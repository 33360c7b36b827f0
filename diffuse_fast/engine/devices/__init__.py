"""Where the engine samples: the CPU, and CUDA devices as the compiled core or torch have them."""
