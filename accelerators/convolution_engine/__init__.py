"""Convolution engines (NVDLA): spec, multiplier array, convolution buffer, arithmetic, device."""
