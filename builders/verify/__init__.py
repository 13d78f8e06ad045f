"""Verifies an engine's features against PyTorch's and benchmarks its speed."""
