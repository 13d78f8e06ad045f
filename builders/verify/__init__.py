"""An engine's features against PyTorch's, and its speed."""
