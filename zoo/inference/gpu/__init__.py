"""Prepares photos on the GPU: JPEG decoding, and Pillow's resize as CUDA kernels."""
