"""Bit-serial machines, which take an operand digit by digit and skip its zeros, and tensor processing engines of them."""
