"""The cocotb test: let each unit of the model play its stimulus, one after the other, and say how long each took."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

IDLE = 0xFFFF


@cocotb.test()
async def play(dut: Any) -> None:
    """Play the units whose numbers ``HWSIM_RTL_PLAY`` lists; their stimulus lies in the working folder."""
    dut.active_i.value = IDLE
    Clock(dut.clk_i, 10, unit="ns").start()
    seconds = {}
    for index in json.loads(os.environ["HWSIM_RTL_PLAY"]):
        begin = time.perf_counter()
        dut.active_i.value = index
        await RisingEdge(dut.done_o)
        seconds[index] = time.perf_counter() - begin
    Path("seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
