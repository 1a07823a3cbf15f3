"""Modules that compute forward and backward in the formats of a recipe."""

from numerics.emulation.context import Operator
from numerics.emulation.module import Emulation, emulate, table
from numerics.emulation.quantised import OperandKey

__all__ = ["Emulation", "OperandKey", "Operator", "emulate", "table"]
