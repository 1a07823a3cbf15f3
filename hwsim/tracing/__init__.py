"""Loaders: workloads captured from PyTorch, ONNX files and SCALE-Sim topologies."""
