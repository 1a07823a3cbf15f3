"""A chip network computed the plain way: dense matrices, Python's integers or one rounding a number, each neuron in each step."""

import numpy as np

from numerics import quantize


def wrap(x, bits):
    return (x + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def toward_zero(x, factor):
    return int(np.sign(x)) * (abs(x) * factor // 4096)


class Reference:
    """One run. ``sent[name][t]``: what each neuron sent (0: nothing); ``v``, ``u``: after each step; counts by step."""

    def __init__(self, network, inputs, steps, *, weight=None, flips=(), dead=None, lost=None):
        self.network, self.chip = network, network.arithmetic
        self.weight = network.weight if weight is None else weight
        self.flips, self.dead, self.lost = flips, dead or {}, lost
        own = [one for one in network.populations if one.kind != "input"]
        kind = object if self.chip.family != "float" else np.float32
        self.state = {
            one.name: {
                name: np.zeros(one.size, kind) + (one.numbers["v_init"] if name == "v" else 0)
                for name in ("u", "u2", "v", "w", "a")
            }
            | {"left": np.zeros(one.size, int)}
            for one in own
        }
        if kind is object:
            for state in self.state.values():
                state["v"] = np.array([int(v) for v in state["v"]], object)
        self.sent = {one.name: [] for one in network.populations}
        self.u, self.v = ({one.name: [] for one in own} for _ in range(2))
        self.active = {one.name: [] for one in own}
        for t in range(steps):
            self.turn_bits(t)
            for one in network.populations:
                if one.kind == "input":
                    given = inputs[one.name]
                    sent = given[t] if t < len(given) else np.zeros(one.size)
                    sent = [self.number(x * one.value_scale) for x in sent]
                else:
                    sent = self.step(one, t)
                self.sent[one.name].append([0 if self.missing(one.name, k, t, x) else x for k, x in enumerate(sent)])
                if one.kind != "input":
                    self.u[one.name].append(list(self.state[one.name]["u"]))
                    self.v[one.name].append(list(self.state[one.name]["v"]))

    def number(self, x):
        return np.float32(x) if self.chip.family == "float" else round(float(x))

    def round(self, x):
        return np.float32(quantize(np.float32(x), self.chip.format))

    def missing(self, name, k, t, x):
        return x != 0 and (k in self.dead.get(name, ()) or (self.lost is not None and self.lost(name, k, t)))

    def turn_bits(self, t):
        for flip in self.flips:
            if flip.step == t:
                register = self.state[flip.population][flip.field]
                if self.chip.family == "float":
                    raw = np.array([register[flip.neuron]], np.float32).view(np.uint32) ^ np.uint32(1 << flip.bit)
                    register[flip.neuron] = raw.view(np.float32)[0]
                else:
                    bits = self.chip.voltage_bits
                    code = (int(register[flip.neuron]) % 2**bits) ^ (1 << flip.bit)
                    register[flip.neuron] = wrap(code, bits)

    def arrivals(self, one, t):
        """(source's value, target, weight, receptor) of each synapse that something passes, in the chip's order."""
        for p in self.network.projections:
            if p.target != one.name:
                continue
            for delay in np.unique(p.delays):
                for s in np.flatnonzero(p.delays == delay):
                    value = self.sent[p.source][t - delay][s] if t >= delay else 0
                    if value != 0:
                        for k in range(p.first[s], p.first[s + 1]):
                            factor = np.float32(p.factor) if self.chip.family == "float" else int(p.factor)
                            weight = self.weight[k] if self.chip.family == "float" else int(self.weight[k])
                            yield value, int(self.network.target[k]), weight, factor, p.receptor

    def step(self, one, t):
        if self.chip.family == "event":
            return self.event_step(one, t)
        x = np.zeros((2, one.size), np.float32 if self.chip.family == "float" else object)
        for value, n, weight, factor, receptor in self.arrivals(one, t):
            if self.chip.family == "float":
                x[receptor, n] = self.round(x[receptor, n] + self.round(weight * np.float32(factor * value)))
            else:
                x[receptor, n] += weight * factor * value
        if t < one.start:
            assert not x.any()
            self.active[one.name].append(0)
            return [0] * one.size
        state = self.state[one.name]
        rest = (state["u"] == 0) & (state["v"] == 0) & (state["left"] == 0) & (x == 0).all(axis=0) & (one.numbers["bias"] == 0)
        for name in ("u2", "w", "a"):
            rest &= state[name] == 0
        if "input_bias" in one.numbers:
            rest &= one.numbers["input_bias"] == 0
        self.active[one.name].append(int((~rest.astype(bool)).sum()))
        update = {"loihi": self.loihi, "fixed": self.fixed, "float": self.floating}[self.chip.family]
        spikes = [update(one, state, n, x[0, n], x[1, n]) for n in range(one.size)]
        if one.kind == "readout":
            if one.shift < 0:
                return [0] * one.size
            return [v if self.chip.family == "float" else v >> one.shift for v in state["v"]]
        return [int(s) for s in spikes]

    def loihi(self, one, state, n, x, _):
        p = {name: int(values[n]) for name, values in one.numbers.items()}
        u = wrap(toward_zero(state["u"][n], 4095 - p["decay_u"]) + wrap(int(x), 22), 24)
        v = toward_zero(state["v"][n], 4096 - p["decay_v"]) + wrap(u + p["bias"], 24)
        v = min(max(v, 1 - 2**23), 2**23 - 1)
        left = max(state["left"][n] - 1, 0)
        v = p["v_reset"] if left else v
        spike = one.kind == "spiking" and v > p["threshold"]
        if spike:
            v = {"zero": p["v_reset"], "subtract": v - p["drop"], "none": v}[one.reset]
            left = p["refractory"]
        state["u"][n], state["v"][n], state["left"][n] = u, v, left
        return spike

    def fixed(self, one, state, n, x, x2):
        p = {name: int(values[n]) for name, values in one.numbers.items() if values.ndim == 1}
        bits = self.chip.decay_bits or 0
        half = 2**bits // 2 if self.chip.nearest else 0
        low, high = self.chip.voltage_range
        edge = 2 ** (self.chip.current_bits - 1) if self.chip.current_bits else 2**62

        def times(name, value):
            return (p[name] * int(value) + half) >> bits

        def current(value):
            return min(max(value, -edge), edge - 1)

        u = state["u"][n] = current(times("decay_u", state["u"][n]) + int(x) + p["input_bias"])
        total = u + p["bias"]
        if "decay_u2" in p:
            state["u2"][n] = current(times("decay_u2", state["u2"][n]) + int(x2))
            total += state["u2"][n]
        imaginary = 0
        if "cosine" in p:
            total += times("cosine", state["v"][n]) - times("sine", state["w"][n])
            imaginary = times("sine", state["v"][n]) + times("cosine", state["w"][n])
        else:
            total += times("decay_v", state["v"][n])
        v = min(max(total, low), high)
        raised = times("adaptation", state["a"][n]) if "adaptation" in p else 0
        level, drop = p["threshold"] + raised, p["drop"] + raised
        spike = False
        if state["left"][n]:
            state["left"][n] -= 1
        else:
            spike = one.kind == "spiking" and v > level
            if spike:
                v, imaginary = {
                    "zero": (p["v_reset"], 0), "subtract": (max(v - drop, low), imaginary), "none": (v, imaginary)
                }[one.reset]  # fmt: skip
                state["left"][n] = p["refractory"]
            state["v"][n] = v
            if "cosine" in p:
                state["w"][n] = min(max(imaginary, low), high)
        if "adaptation" in p:
            state["a"][n] = min(times("decay_a", state["a"][n]) + spike * 2**bits, edge - 1)
        return spike

    def floating(self, one, state, n, x, x2):
        p, r = {name: values[n] for name, values in one.numbers.items()}, self.round
        u = state["u"][n] = r(r(p["decay_u"] * state["u"][n]) + r(x + p["input_bias"]))
        imaginary = np.float32(0)
        if "cosine" in p:
            v = r(r(p["cosine"] * state["v"][n]) - r(p["sine"] * state["w"][n]))
            imaginary = r(r(p["sine"] * state["v"][n]) + r(p["cosine"] * state["w"][n]))
        else:
            v = r(p["decay_v"] * state["v"][n])
        v = r(v + u)
        if "decay_u2" in p:
            state["u2"][n] = r(r(p["decay_u2"] * state["u2"][n]) + x2)
            v = r(v + state["u2"][n])
        v = r(v + p["bias"])
        level = r(p["threshold"] + r(p["adaptation"] * state["a"][n])) if "adaptation" in p else p["threshold"]
        spike = False
        if state["left"][n]:
            state["left"][n] -= 1
        else:
            spike = one.kind == "spiking" and (v >= level if one.at_threshold else v > level)
            if spike:
                v, imaginary = {
                    "zero": (p["v_reset"], np.float32(0)), "subtract": (r(v - level), imaginary), "none": (v, imaginary)
                }[one.reset]  # fmt: skip
                state["left"][n] = p["refractory"]
            state["v"][n], state["w"][n] = v, imaginary
        if "adaptation" in p:
            fallen = r(p["decay_a"] * state["a"][n])
            state["a"][n] = r(fallen + np.float32(1)) if spike else fallen
        return spike

    def event_step(self, one, t):
        """As ODIN's neuron: v is 0 to 255, saturates and is compared after each event; the step's end takes the leak off."""
        state, threshold = self.state[one.name]["v"], [int(x) + 1 for x in one.numbers["threshold"]]
        spikes, touched = [0] * one.size, np.array([v != 0 for v in state])
        for value, n, weight, _, _ in self.arrivals(one, t):
            touched[n] = True
            for _ in range(value):
                state[n] = min(255, max(0, state[n] + weight))
                if state[n] >= threshold[n]:
                    state[n] = 0
                    spikes[n] += 1
        for n in range(one.size):
            state[n] = max(0, state[n] + int(one.numbers["bias"][n]))
        self.active[one.name].append(int(touched.sum()))
        return spikes
