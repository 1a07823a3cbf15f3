"""A bug planted in a copy of a unit is caught by its bench, named, and drawn."""

import re
import shutil

import pytest
from simulators import need

from rtl import verification
from rtl.simulator import missing_tools
from rtl.verification import SOURCES, verify

# Unit, file, the text of one line, what becomes of it.
BUGS = [
    ("mac_int8", "mac_int8", "exact[32] != exact[31]", "exact[32] == exact[31]"),
    ("systolic_ws", "ws_element", "assign used = first_i ? shadow : active;", "assign used = active;"),
    ("systolic_ws", "systolic_ws", "load_left <= LoadRest;", "load_left <= LoadRest - 1;"),
    ("systolic_os", "systolic_os", "g_drain[c].shifts < CountBits'(r)", "g_drain[c].shifts <= CountBits'(r)"),
    ("systolic_os", "os_element", "first_i ? 32'd0 : sum", "first_i && enable_i ? 32'd0 : sum_unused_fault"),
]
