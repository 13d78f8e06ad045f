"""Names of the packages that prepare photos on the GPU; nothing heavy is imported."""

from __future__ import annotations

CODEC = "nvidia-nvimgcodec-cu13"
"""nvImageCodec, which decodes."""

GPU_PACKAGES = (CODEC, "nvidia-nvjpeg", "nvidia-cuda-nvrtc")
"""What the extra ``gpu-decode`` installs beside CUDA's bindings."""
