"""``spike_router`` against ``neuromorphic.spike_router``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neuromorphic.router import PORTS, FlitFormat, spike_router
from rtl.bench import Bench, Latency, Port, Trace, Values
from rtl.benches.probes import measured

_STREAM = 16
"""Flits of the stream that shows the rate."""


class SpikeRouterBench(Bench):
    """Lone packets, streams, all inputs to one output, every pair of ports, then random traffic with random back-pressure."""

    unit = "spike_router"
    uses = ("fifo",)

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return (
            Port("rst_ni"), Port("x_i", parameters["XBits"]), Port("y_i", parameters["YBits"]), Port("valid_i", 1, PORTS),
            Port("flit_i", _format(parameters).bits, PORTS), Port("ready_i", 1, PORTS),
        )  # fmt: skip

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("ready_o", 1, PORTS), Port("valid_o", 1, PORTS), Port("flit_o", _format(parameters).bits, PORTS)

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        last_x, last_y = (1 << parameters["XBits"]) - 1, (1 << parameters["YBits"]) - 1
        # In the middle, at the corners, and anywhere: coordinates are compared as unsigned numbers.
        places = [((last_x + 1) // 2, (last_y + 1) // 2), (0, 0), (last_x, last_y), (0, last_y)]
        runs: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
        packets = 0
        while len(runs) < len(places) or packets < cases:
            x, y = (
                places[len(runs)]
                if len(runs) < len(places)
                else (int(rng.integers(0, last_x + 1)), int(rng.integers(0, last_y + 1)))
            )
            inputs, outputs, count = _run(parameters, x, y, 2000, rng)
            runs.append((inputs, outputs))
            packets += count
        inputs = {name: np.concatenate([run[0][name] for run in runs]) for name in runs[0][0]}
        outputs = {name: np.concatenate([run[1][name] for run in runs]) for name in runs[0][1]}
        return Trace(inputs, outputs, packets, compared_from=1, marks={"lone": 1 + 2, "stream": 1 + 10})

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        # Through the local port, in and out.
        local = trace.inputs["valid_i"][:, 4] & (observed["ready_o"][:, 4] != 0)
        taken, shown = np.flatnonzero(local), np.flatnonzero(observed["valid_o"][:, 4])
        lone, stream = trace.marks["lone"], trace.marks["stream"]
        return measured(
            (int(taken[taken >= lone][0]), int(shown[shown >= lone][0])),
            taken[taken >= stream][:_STREAM].tolist(),
            shown[shown >= stream][:_STREAM].tolist(),
            "an output that is not ready keeps its flit; a full queue takes none",
        )


def _format(parameters: Mapping[str, int]) -> FlitFormat:
    return FlitFormat(parameters["XBits"], parameters["YBits"], parameters["PayloadBits"])


def _run(
    parameters: Mapping[str, int], x: int, y: int, count: int, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """A reset, directed and random traffic, and cycles in which the router comes to rest."""
    form = _format(parameters)
    # Destinations by output: any that lies in its direction, if there is one.
    all_x, all_y = np.meshgrid(np.arange(1 << form.x_bits), np.arange(1 << form.y_bits), indexing="ij")
    ahead = [
        (all_x == x) & (all_y < y), all_x > x, (all_x == x) & (all_y > y), all_x < x, (all_x == x) & (all_y == y),
    ]  # fmt: skip
    there = [np.flatnonzero(mask) for mask in ahead]
    outputs_there = [o for o in range(PORTS) if there[o].size]
    entries = [(4, 4, 2)] + [(4, 4, 10)] * _STREAM  # input, output, first cycle
    at = 10 + 3 * _STREAM
    for entry in range(PORTS):  # every pair of ports, alone
        for output in outputs_there:
            entries.append((entry, output, at))
            at += 2
    for output in outputs_there:  # all inputs to one output
        entries += [(entry, output, at) for entry in range(PORTS)] * 6
        at += 6 * PORTS + 4
    for turn in range(PORTS):  # all outputs at full rate, as far as they are there
        entries += [(entry, (entry + turn) % PORTS, at) for entry in range(PORTS) if (entry + turn) % PORTS in outputs_there] * 6
        at += 30
    calm = at  # random traffic from here on
    mean_gap = rng.choice([0, 0, 1, 4])
    for entry in range(PORTS):
        wanted = rng.choice(outputs_there, count // PORTS, p=_preference(len(outputs_there), rng))
        times = at + np.cumsum(rng.integers(0, 2 * mean_gap + 1, wanted.size))
        entries += list(zip([entry] * wanted.size, wanted.tolist(), times.tolist(), strict=True))

    port, output, first = np.array(entries).T
    place = np.array([rng.choice(there[o]) for o in output])
    flits = form.pack(place >> form.y_bits, place & ((1 << form.y_bits) - 1), rng.integers(0, 1 << form.payload_bits, place.size))
    cycles = int(first.max()) + 12 * count
    ready = np.ones((cycles, 1, PORTS), bool)
    ready[calm:] = rng.random((cycles - calm, 1, PORTS)) < rng.choice([0.2, 0.5, 0.9, 1.0], PORTS)
    ready[calm + 200 : calm + 260] = False  # until all queues are full
    model = spike_router(x=x, y=y, depth=parameters["Depth"], flit_format=form)
    ran = model.run(flits, port=port, not_before=first, ready=ready).cycles
    model.reset()
    shown = model.run(flits, port=port, not_before=first, ready=ready, cycles=ran + 2, record=True).trace
    assert shown is not None

    def ports(values: np.ndarray, at_reset: int) -> np.ndarray:
        flat = values.reshape(-1, PORTS)
        return np.concatenate([np.full((1, PORTS), at_reset, flat.dtype), flat])

    inputs = {
        "rst_ni": np.arange(ran + 3) > 0, "x_i": np.full(ran + 3, x), "y_i": np.full(ran + 3, y),
        "valid_i": ports(shown.in_valid, 0), "flit_i": ports(shown.in_flit, 0), "ready_i": ports(shown.out_ready, 0),
    }  # fmt: skip
    outputs = {"ready_o": ports(shown.in_ready, 1), "valid_o": ports(shown.out_valid, 0), "flit_o": ports(shown.out_flit, 0)}
    return inputs, outputs, flits.size


def _preference(outputs: int, rng: np.random.Generator) -> np.ndarray:
    """Even, or most to one of them."""
    weights = np.ones(outputs)
    if rng.random() < 0.5:
        weights[rng.integers(outputs)] = 4 * outputs
    return weights / weights.sum()
