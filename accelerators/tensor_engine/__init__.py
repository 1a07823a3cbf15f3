"""Tensor engines: chips of many equal units, each with matrix units, vector lanes and memories (GPUs and their like)."""
