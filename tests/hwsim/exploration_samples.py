"""Explorations as plain data, made from closed forms, with everything that a page has to cope with."""

import numpy as np

NASTY = 'search </script><b id="nasty">of</b> & "machines" \u2028'
DATAFLOWS = ("weight_stationary", "it's: <img src=x onerror=alert(1)>")
ROWS = (8, 16, 32, 64)
AREA_LIMIT = 5.0


def dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def front_of(costs, eligible):
    """By comparing every point with every other."""
    return [
        ok and not any(other and dominates(d, c) for d, other in zip(costs, eligible, strict=True))
        for c, ok in zip(costs, eligible, strict=True)
    ]


def sample_data(n=240, seed=3, *, quadratic=True):
    """``n`` trials of a search and a random baseline: failed, infeasible and unknown ones, one front, layers for those on it."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(ROWS, n)
    flows = rng.integers(2, size=n)
    bandwidth = 10 ** rng.uniform(9, 11, n)
    enabled = rng.random(n) < 0.5
    time = 1e-2 / rows * (1 + 0.5 * flows) + 2e6 / bandwidth + 1e-4 * enabled
    energy = 1e-4 * rows**0.5 + 1e-3 * (1 - flows) + 3e-15 * bandwidth + 1e-5 * rng.random(n)
    area = 0.1 * rows + 1e-11 * bandwidth
    failed = rng.random(n) < 0.08
    unknown = ~failed & (rng.random(n) < 0.05)
    feasible = ~failed & ~unknown & (area <= AREA_LIMIT)
    if quadratic:
        front = front_of(list(zip(time.tolist(), energy.tolist(), strict=True)), feasible.tolist())
    else:
        order, best, front = np.lexsort((energy, time)), np.inf, np.zeros(n, bool)
        for i in order:
            if feasible[i] and energy[i] < best:
                best, front[i] = energy[i], True
        front = front.tolist()

    def known(values, missing):
        return [None if gone else value for value, gone in zip(values.tolist(), missing.tolist(), strict=True)]

    columns = {
        "trial": list(range(n)),
        "stage": ["random" if i < n // 3 else "search" for i in range(n)],
        "array.rows": rows.tolist(),
        "array.dataflow": [DATAFLOWS[i] for i in flows.tolist()],
        "off_chip.bandwidth_bytes_per_s": bandwidth.tolist(),
        "sparse.enabled": enabled.tolist(),
        "time_s": known(time, failed),
        "energy_j": known(energy, failed | unknown),
        "area_mm2": known(area, failed),
        "error": ["rows: expected <i>fewer</i>" if gone else "" for gone in failed.tolist()],
        "feasible": feasible.tolist(),
        "front": front,
    }
    layers = {
        str(i): [
            {
                "name": f"conv{k}" if k else "conv<0>", "kind": "convolution", "format": "int8→int32", "unit": "array",
                "time_s": columns["time_s"][i] * share, "energy_j": columns["energy_j"][i] * share, "macs": 10**6 * (k + 1),
                "bytes_offchip": 64 * k, "utilization": 0.25 * k, "compute_cycles": 60 * share, "stall_cycles": 30 * share,
                "overhead_cycles": 10 * share,
            }
            for k, share in enumerate((0.2, 0.5, 0.3))
        ]
        for i, on in enumerate(front)
        if on
    }  # fmt: skip
    return {
        "schema": "hwsim.exploration",
        "schema_version": 1,
        "version": "0.1.0",
        "name": NASTY,
        "main": "search",
        "space": {
            "array.rows": {"kind": "choice", "values": list(ROWS), "ordered": True},
            "array.dataflow": {"kind": "choice", "values": list(DATAFLOWS), "ordered": False},
            "off_chip.bandwidth_bytes_per_s": {"kind": "real", "low": 1e9, "high": 1e11, "log": True, "ordered": True},
            "sparse.enabled": {"kind": "choice", "values": [False, True], "ordered": False},
        },
        "objectives": [{"metric": "time_s", "direction": "min"}, {"metric": "energy_j", "direction": "min"}],
        "constraints": [f"area_mm2 <= {AREA_LIMIT:g}"],
        "metrics": ["time_s", "energy_j", "area_mm2"],
        "columns": columns,
        "stages": ["search", "random"],
        "reference": {"time_s": 2e-3, "energy_j": 3e-3},
        "hypervolume": {"search": 0.91, "random": 0.84},
        "history": {"search": [[40, 0.6], [100, 0.85], [160, 0.91]], "random": [[20, 0.5], [80, 0.84]]},
        "notes": ["a note with <u>markup</u>"],
        "predictors": [{"metric": "time_s", "kind": "forest", "spearman": 0.98}],
        "layers": layers,
    }
