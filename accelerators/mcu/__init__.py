"""Clusters of microcontroller cores: instruction costs, a shared banked memory, and classical machine learning on them."""
