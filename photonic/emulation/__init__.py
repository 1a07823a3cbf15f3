"""What an optical engine computes: a matrix product tile by tile through the optics, detectors and converters of its spec."""
