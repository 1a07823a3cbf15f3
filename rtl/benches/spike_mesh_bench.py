"""``spike_mesh`` against ``neuromorphic.Mesh``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neuromorphic.router import FlitFormat, Mesh, RouterPort
from rtl.bench import Bench, Latency, Port, Trace, Values
from rtl.benches.probes import measured

_STREAM = 16
"""Flits of the stream that shows the rate."""


class SpikeMeshBench(Bench):
    """Every pair of routers alone, all to one, then random traffic with random back-pressure."""

    unit = "spike_mesh"
    uses = ("fifo", "spike_router")

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        routers = parameters["Rows"] * parameters["Columns"]
        bits = _mesh(parameters).flit_format.bits
        return Port("rst_ni"), Port("valid_i", 1, routers), Port("flit_i", bits, routers), Port("ready_i", 1, routers)

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        routers = parameters["Rows"] * parameters["Columns"]
        return (
            Port("ready_o", 1, routers),
            Port("valid_o", 1, routers),
            Port("flit_o", _mesh(parameters).flit_format.bits, routers),
        )

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        mesh = _mesh(parameters)
        routers = mesh.rows * mesh.columns
        far = mesh.rows + mesh.columns
        corner = routers - 1
        entries = [(0, corner, 2)] + [(0, corner, 4 + far)] * _STREAM  # from, to, first cycle
        at = 8 + 2 * far + 3 * _STREAM
        pairs = [(a, b) for a in range(routers) for b in range(routers)]
        for index in rng.permutation(len(pairs))[:1000]:  # some overlap, in a mesh that is almost empty
            entries.append((*pairs[index], at))
            at += int(rng.integers(1, far))
        for target in rng.permutation(routers)[:8]:
            entries += [(source, int(target), at) for source in range(routers)] * 4
            at += 4 * routers
        calm = at
        while len(entries) < cases or at == calm:
            burst = 400
            target = rng.integers(0, routers, burst)
            if rng.random() < 0.3:
                target[rng.random(burst) < 0.7] = rng.integers(routers)
            source = rng.integers(0, routers, burst)
            times = at + rng.integers(0, 1 + int(burst * rng.choice([0.01, 1.0, 3.0]) / routers), burst)
            entries += list(zip(source.tolist(), target.tolist(), np.sort(times).tolist(), strict=True))
            at = int(times.max()) + 1
        source, target, first = np.array(entries).T
        row, column = np.divmod(target, mesh.columns)
        flits = mesh.flit_format.pack(column, row, rng.integers(0, 1 << mesh.flit_format.payload_bits, target.size))
        ready = np.ones((int(first.max()) + 40 * len(entries), routers, 5), bool)
        ready[calm:] = rng.random((len(ready) - calm, routers, 5)) < rng.choice([0.2, 0.5, 0.9, 1.0], (routers, 1))
        ready[calm + 200 : calm + 260] = False  # until the mesh is full
        cycles = mesh.run(flits, router=source, not_before=first, ready=ready).cycles + 2
        mesh.reset()
        shown = mesh.run(flits, router=source, not_before=first, ready=ready, cycles=cycles, record=True).trace
        assert shown is not None

        def local(values: np.ndarray, at_reset: int) -> np.ndarray:
            flat = values[:, :, :, RouterPort.LOCAL].reshape(-1, routers)
            return np.concatenate([np.full((1, routers), at_reset, flat.dtype), flat])

        inputs = {
            "rst_ni": np.arange(cycles + 1) > 0, "valid_i": local(shown.in_valid, 0), "flit_i": local(shown.in_flit, 0),
            "ready_i": local(shown.out_ready, 0),
        }  # fmt: skip
        outputs = {"ready_o": local(shown.in_ready, 1), "valid_o": local(shown.out_valid, 0), "flit_o": local(shown.out_flit, 0)}
        return Trace(inputs, outputs, flits.size, compared_from=1, marks={"lone": 1 + 2, "stream": 1 + 4 + far})

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        # From the first corner to the last.
        routers = parameters["Rows"] * parameters["Columns"]
        offered, ready, valid = (
            np.asarray(values).reshape(-1, routers) != 0
            for values in (trace.inputs["valid_i"], observed["ready_o"], observed["valid_o"])
        )
        taken, shown = np.flatnonzero(offered[:, 0] & ready[:, 0]), np.flatnonzero(valid[:, -1])
        lone, stream = trace.marks["lone"], trace.marks["stream"]
        return measured(
            (int(taken[taken >= lone][0]), int(shown[shown >= lone][0])),
            taken[taken >= stream][:_STREAM].tolist(),
            shown[shown >= stream][:_STREAM].tolist(),
            "a full queue holds what is behind it; corner to corner, 1 + hops cycles",
        )


def _mesh(parameters: Mapping[str, int]) -> Mesh:
    form = FlitFormat(parameters["XBits"], parameters["YBits"], parameters["PayloadBits"])
    return Mesh(parameters["Rows"], parameters["Columns"], depth=parameters["Depth"], flit_format=form)
