"""Names of the packages needed to prepare photos on the GPU; imports nothing."""

from __future__ import annotations

NVJPEG = "nvidia-nvjpeg"
"""The decoder of JPEG files."""

GPU_PACKAGES = (NVJPEG, "nvidia-cuda-nvrtc")
"""Packages of the extra ``gpu-decode``, besides the CUDA bindings."""
