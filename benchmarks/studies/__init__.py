"""Studies: how the zoo's lower precisions compare with other ways to make them.

``python -m benchmarks.studies fp16`` and ``python -m benchmarks.studies int8`` put each model
through every way that there is (:mod:`ways`), run what comes out on the CPU with every value
rounded as the
type rounds it, and compare its features with PyTorch's (:mod:`result`). :mod:`speed` times on a GPU
what they made. No part of the farm.
"""
