"""Studies: compare the zoo's lower precisions with other methods.

``python -m benchmarks.studies fp16`` and ``python -m benchmarks.studies int8`` convert each model
by every method (:mod:`ways`), run the networks on the CPU with every value rounded to its type, and
compare the features with PyTorch's (:mod:`result`). :mod:`speed` times their engines on a GPU.
"""
