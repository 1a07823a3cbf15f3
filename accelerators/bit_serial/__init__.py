"""Bit-serial machines: multipliers that take an operand digit by digit and skip its zeros."""
