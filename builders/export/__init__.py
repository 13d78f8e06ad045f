"""PyTorch backbone to normalised ONNX and golden features."""
