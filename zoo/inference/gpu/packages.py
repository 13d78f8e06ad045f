"""Names of the packages needed to prepare photos on the GPU; imports nothing."""

from __future__ import annotations

GPU_PACKAGES = ("nvidia-nvjpeg", "nvidia-cuda-nvrtc")
"""Packages of the extra ``gpu-decode``, besides the CUDA bindings."""
