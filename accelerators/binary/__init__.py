"""Machines of binary neural networks: threshold-logic cells and how nodes are scheduled onto them."""
