"""A banked DRAM behind a systolic array: tiles move as they lie."""

from __future__ import annotations

import pytest

import hwsim
from accelerators.systolic.transfers import Moved, mapped_bytes_per_s
from hwsim.memory import OffChip
from hwsim.operators import Matmul
from hwsim.workload import chain

FLAT = OffChip(bandwidth_bytes_per_s=1e9, latency_s=0, energy_pj_per_byte=1, achieved_fraction=0.5)
BANKED = OffChip(dram={"preset": "ddr4_2400", "channels": 1})


def test_a_flat_memory_knows_no_pattern():
    assert mapped_bytes_per_s(FLAT, [Moved(1e6, 8, 4096), Moved(5, 1, 1, written=True)]) == 0.5e9


def test_times_of_operands_add_up():
    """Two operands among each other: total bytes over the sum of the times at the rate of each one's own pattern."""
    wide, narrow = Moved(1e6, 4096, 4096), Moved(3e6, 16, 8192)
    rates = [
        BANKED.achieved_bytes_per_s_for(streams=2),
        BANKED.achieved_bytes_per_s_for(run_bytes=16, stride_bytes=8192, streams=2),
    ]
    assert rates[1] < 0.6 * rates[0]
    expected = 4e6 / (1e6 / rates[0] + 3e6 / rates[1])
    assert mapped_bytes_per_s(BANKED, [wide, narrow, Moved(0, 1, 1)]) == pytest.approx(expected)


def test_nothing_moved_is_long_reads():
    assert mapped_bytes_per_s(BANKED, []) == BANKED.achieved_bytes_per_s


def test_narrow_tiles_are_slower_than_long_rows():
    """The same bytes of a matmul whose tiles are a few bytes of a row each, and one whose tiles are whole rows."""
    base = {"memory.off_chip": {"dram": {"preset": "ddr4_2400", "channels": 1}}}
    device = hwsim.get_device("gemmini_16x16", overrides=base)
    flat = hwsim.get_device(
        "gemmini_16x16",
        overrides={
            "memory.off_chip": {
                "bandwidth_bytes_per_s": device.spec.memory.off_chip.achieved_bytes_per_s,
                "latency_s": device.spec.memory.off_chip.latency_s,
                "energy_pj_per_byte": device.spec.memory.off_chip.energy_pj_per_byte,
            }
        },
    )
    work = chain("one", [Matmul(name="one", m=64, n=4096, k=4096)])
    banked, streaming = device.simulate(work), flat.simulate(work)
    assert banked.tables["mapping"] == streaming.tables["mapping"]  # the mapping is the one for long reads
    assert banked.bytes_offchip == streaming.bytes_offchip
    assert banked.tables["mapping"][0]["tile_n"] < 4096
    assert 1.05 * streaming.time_s < banked.time_s
    assert banked.bytes_offchip <= device.spec.memory.off_chip.dram.peak_bytes_per_s * banked.time_s
