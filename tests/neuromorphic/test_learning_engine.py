"""The integer learning engine against exact arithmetic in fractions, and its rounding against expectations."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from learning_networks import sparse_synapses, taught

from neuromorphic.learning.learning_engine import LearningEngine
from neuromorphic.learning.plastic_simulation import PlasticSimulation
from neuromorphic.network import Synapses
from numerics.errors import InputError
from numerics.faults import BitFaults, FaultMap, draw_map, stream

HALF = Fraction(1, 2)


def nearest(x):
    return floor(x + HALF)


def integer_synapses(rng, sources, targets, density, low=-60, high=60):
    synapses = sparse_synapses(rng, sources, targets, density)
    return Synapses(
        synapses.first, synapses.target, rng.integers(low, high, synapses.count).astype(float), synapses.count, synapses.kind
    )


def reference(first_weight, sent, fired, rewards, rule, products, tag_products, epoch):
    """(weight, tag) of one synapse after every epoch, in fractions; rounding to nearest, mixed sign.

    products: [(coefficient, names)]; rule: name → (impulse, tau in steps).
    """
    keep = {name: Fraction(round(4096 * np.exp(-1 / tau)), 4096) for name, (_, tau) in rule.items()}
    w, tag, found = int(first_weight), 0, []
    now = dict.fromkeys(rule, 0)
    for start in range(0, len(sent) - epoch + 1, epoch):
        before, after = [], []
        for t in range(start, start + epoch):
            now = {name: nearest(value * keep[name]) for name, value in now.items()}
            before.append(dict(now))
            for name in now:
                if (sent if name[0] == "x" else fired)[t]:
                    now[name] = min(127, now[name] + rule[name][0])
            after.append(dict(now))
        pre = [t for t in range(epoch) if sent[start + t]]
        post = [t for t in range(epoch) if fired[start + t]]
        reward = int(sum(rewards[start : start + epoch]))

        def value(names, pre=pre, post=post, before=before, after=after, reward=reward, w=w, tag=tag):
            if ("x0" in names and not pre) or ("y0" in names and not post):
                return 0
            times = ([pre[-1]] if "x0" in names else []) + ([post[-1]] if "y0" in names else [])
            at = max(times, default=epoch - 1)
            total = 1
            for name in names:
                if name in ("x0", "y0"):
                    continue
                if name in ("w", "t", "r"):
                    total *= {"w": w, "t": tag, "r": reward}[name]
                elif name[0] == "y" and "x0" in names and "y0" not in names:
                    total *= before[at][name]
                else:
                    total *= after[at][name]
            return total

        w_change = sum(c * value(names) for c, names in products)
        tag_change = sum(c * value(names) for c, names in tag_products)
        w = min(127, max(-128, w + nearest(w_change)))
        tag = min(255, max(-255, tag + nearest(tag_change)))
        found.append((w, tag))
    return found


CASES = {
    "stdp": ("2^-3*x1*y0 - 2^-3*x0*y1", "", [(Fraction(1, 8), ("x1", "y0")), (Fraction(-1, 8), ("x0", "y1"))], []),
    "decaying": (
        "2^-4*y0*(x1 - 2^-1*w) - 0.0625*x0*y2*y0 + 1",
        "",
        [
            (Fraction(1, 16), ("x1", "y0")),
            (Fraction(-1, 32), ("y0", "w")),
            (Fraction(-1, 16), ("x0", "y2", "y0")),
            (Fraction(1), ()),
        ],
        [],
    ),
    "three-factor": (
        "2^-2*r*t",
        "2^-3*x1*y0 - 2^-4*x0*y1 - 2^-3*t",
        [(Fraction(1, 4), ("r", "t"))],
        [(Fraction(1, 8), ("x1", "y0")), (Fraction(-1, 16), ("x0", "y1")), (Fraction(-1, 8), ("t",))],
    ),
    "triplet": ("2^-9*x1*y0*y3 - 2^-3*x0*y1", "", [(Fraction(1, 512), ("x1", "y0", "y3")), (Fraction(-1, 8), ("x0", "y1"))], []),
}
TRACES = {"x1": (40, 20.0), "y1": (50, 30.0), "y2": (100, 5.0), "y3": (127, 50.0)}


@pytest.mark.parametrize("epoch", [1, 4, 16])
@pytest.mark.parametrize("case", CASES)
def test_exact_arithmetic(case, epoch):
    weight, tag, products, tag_products = CASES[case]
    rng = np.random.default_rng(epoch)
    synapses = integer_synapses(rng, 6, 5, 0.6)
    steps = 160
    sent, fired = rng.random((steps, 6)) < 0.12, rng.random((steps, 5)) < 0.12
    reward = rng.integers(-2, 3, steps)
    rule = LearningEngine(
        weight, tag, epoch_steps=epoch, rounding="nearest", **{name: (i, tau * 1e-3) for name, (i, tau) in TRACES.items()}
    )
    run = PlasticSimulation(taught(synapses, 5, 2), {"learns": rule})
    history = run.run(
        {"in": sent, "teacher": fired}, modulator={"learns": reward} if rule.modulated else None, record=["learns"]
    ).weights["learns"]
    arrived = np.concatenate([np.zeros((2, 6), bool), sent[:-2]])
    moved = clipped = 0
    for k, (s, n) in enumerate(zip(np.repeat(np.arange(6), np.diff(synapses.first)), synapses.target, strict=True)):
        expected = reference(synapses.weight[k], arrived[:, s], fired[:, n], reward, TRACES, products, tag_products, epoch)
        assert history[epoch - 1 :: epoch, k].tolist() == [w for w, _ in expected]
        moved += len({w for w, _ in expected}) > 3
        clipped += any(w in (-128, 127) for w, _ in expected)
    assert moved >= synapses.count // 2
    assert clipped or case != "decaying" or epoch > 1


def test_only_synapses_of_neurons_that_spiked_are_read():
    rng = np.random.default_rng(2)
    synapses = integer_synapses(rng, 20, 10, 0.4)
    sent, fired = rng.random((64, 20)) < 0.05, rng.random((64, 10)) < 0.05
    traces = {"x1": (16, 0.02), "y1": (16, 0.02)}
    counts = {}
    for name, text in (("events", "2^-2*x1*y0 - 2^-2*x0*y1"), ("all", "2^-2*x1*y0 - 2^-2*x0*y1 + 0*w + 2^-16*t*x1")):
        rule = LearningEngine(text, "x0*y0" if name == "all" else "", epoch_steps=4, **traces)
        run = PlasticSimulation(taught(synapses, 10), {"learns": rule})
        run.run({"in": sent, "teacher": fired})
        counts[name] = run.counts["learns"]
    source = np.repeat(np.arange(20), np.diff(synapses.first))
    by_epoch = [a.reshape(16, 4, -1).any(axis=1) for a in (sent, fired)]
    touched = sum(int((pre[source] | post[synapses.target]).sum()) for pre, post in zip(*by_epoch, strict=True))
    assert counts["events"].synapses_read == touched < 16 * synapses.count
    assert counts["all"].synapses_read == 16 * synapses.count
    assert 0 < counts["events"].weight_updates <= touched


def test_stochastic_rounding_has_no_bias():
    """Each of 40,000 synapses should gain 0.3 a pair over 10 pairs; nearest rounding gains nothing."""
    size, pairs, step = 200, 10, 0.296875  # 19/64
    synapses = Synapses.from_dense(np.zeros((size, size)))
    pulse = np.zeros((pairs * 2, size))
    pulse[::2] = 1
    changes = {}
    for rounding in ("stochastic", "nearest"):
        rule = LearningEngine(f"{step}*x0*y0", rounding=rounding)
        run = PlasticSimulation(taught(synapses, size), {"learns": rule}, seed=1)
        run.run({"in": pulse, "teacher": pulse})
        changes[rounding] = run.weights("learns")
    gained = changes["stochastic"]
    assert (changes["nearest"] == 0).all()
    spread = np.sqrt(pairs * step * (1 - step))
    assert abs(gained.mean() - pairs * step) < 4 * spread / size
    assert gained.std() == pytest.approx(spread, rel=0.03)
    assert np.bincount(gained.astype(int), minlength=pairs + 1)[[0, pairs]].sum() > 0


def test_stochastic_traces_decay_as_they_should_on_average():
    size = 20_000
    synapses = Synapses.from_dense(np.eye(2))
    rule = LearningEngine("x1*y0", x1=(100, 0.01))
    from neuromorphic.learning._learning_engine_kernels import decay_traces

    traces, keep = np.full(size, 100, np.int64), round(4096 * np.exp(-0.1))
    for step in range(15):
        decay_traces(traces, keep, 12, True, 5, 1, step)
    expected = 100 * (keep / 4096) ** 15
    assert traces.mean() == pytest.approx(expected, abs=4 * traces.std() / size**0.5)
    assert traces.std() > 0.3
    run = PlasticSimulation(taught(synapses, 2), {"learns": rule})
    run.run({"in": np.ones((3, 2)), "teacher": np.zeros((3, 2))})
    assert (run._learning["learns"].x[0] == 127).all()  # it saturates at 7 bits


def test_a_seed_is_a_sequence_of_bits():
    rng = np.random.default_rng(9)
    synapses = integer_synapses(rng, 8, 8, 0.7)
    sent, fired = rng.random((100, 8)) < 0.2, rng.random((100, 8)) < 0.2
    rule = LearningEngine("2^-5*x1*y0 - 2^-5*x0*y1", x1=(16, 0.02), y1=(16, 0.02))

    def weights(seed, parts=1):
        run = PlasticSimulation(taught(synapses, 8), {"learns": rule}, seed=seed)
        for a, b in zip(np.array_split(sent, parts), np.array_split(fired, parts), strict=True):
            run.run({"in": a, "teacher": b})
        return run.weights("learns").tolist()

    assert weights(1) == weights(1, 7) != weights(2)


@pytest.mark.parametrize("sign", ["mixed", "excitatory", "inhibitory"])
def test_stuck_bits_show_in_every_weight_that_is_written(sign):
    rng = np.random.default_rng(10)
    limits = {"mixed": (-100, 100), "excitatory": (0, 200), "inhibitory": (-200, 0)}[sign]
    synapses = integer_synapses(rng, 10, 10, 0.9, *limits)
    sent, fired = rng.random((120, 10)) < 0.2, rng.random((120, 10)) < 0.2
    rule = LearningEngine("2^-3*x1*y0 - 2^-3*x0*y1", x1=(30, 0.02), y1=(30, 0.02), sign=sign)
    faults = draw_map(BitFaults(kind="stuck_at_1", rate=0.03), (synapses.count,), "int8", stream(0, "weights")).merged(
        draw_map(BitFaults(kind="stuck_at_0", rate=0.03), (synapses.count,), "int8", stream(1, "weights"))
    )
    assert len(faults) > 10
    clean = PlasticSimulation(taught(synapses, 10), {"learns": rule})
    faulty = PlasticSimulation(taught(synapses, 10), {"learns": rule}, stuck={"learns": faults})
    shown = [run.run({"in": sent, "teacher": fired}, record=["learns"]).weights["learns"].astype(int) for run in (clean, faulty)]
    code = [
        np.array([format(w & 255 if sign == "mixed" else abs(w), "08b") for w in run.ravel()]).reshape(run.shape) for run in shown
    ]
    sound = np.setdiff1d(np.arange(synapses.count), faults.elements)
    assert np.array_equal(shown[0][:, sound], shown[1][:, sound])
    wrong = 0
    for k, ones, zeros in zip(faults.elements, faults.set, faults.clear, strict=True):
        for bit in range(8):
            wanted = "1" if int(ones) >> bit & 1 else "0" if int(zeros) >> bit & 1 else None
            if wanted:
                assert all(c[7 - bit] == wanted for c in code[1][:, k])
                wrong += any(c[7 - bit] != wanted for c in code[0][:, k])
    assert wrong > 5


def test_stuck_weights_and_flips():
    rule = LearningEngine("x0*y0")
    synapses = Synapses.from_dense([[5.0, 6.0, 7.0]])
    ones = {"in": np.ones((4, 3)), "teacher": np.ones((4, 1))}
    run = PlasticSimulation(taught(synapses, 1), {"learns": rule}, stuck={"learns": {1: -9}})
    run.run(ones)
    assert run.weights("learns").tolist() == [9, -9, 11]
    flipped = PlasticSimulation(taught(synapses, 1), {"learns": rule}, stuck={"learns": FaultMap.from_places([0], [7], "flip")})
    assert flipped.weights("learns").tolist() == [5 - 128, 6, 7]
    flipped.run(ones)
    assert flipped.weights("learns").tolist() == [9 - 128, 10, 11]  # a flipped bit can be written again


def test_weights_in_units():
    rule = LearningEngine("x0*y0", unit=0.25)
    run = PlasticSimulation(taught(Synapses.from_dense([[0.5]]), 1), {"learns": rule})
    run.run({"in": np.ones((200, 1)), "teacher": np.ones((200, 1))})
    assert run.weights("learns").tolist() == [127 * 0.25]


def test_products():
    rule = LearningEngine("(x1 - 2^-1)*(y1 + w)*x0*x0 - x0*x1*y1", x1=(1, 1.0), y1=(1, 1.0))
    assert dict(rule.products("weight")) == {"x0 x1 w": 1.0, "x0 y1": -0.5, "x0 w": -0.5}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"weight": "x1*y0"}, "weight: x1 is not given, expected its impulse and time constant"),
        ({"weight": "x9*y0"}, "weight: unknown name 'x9'; did you mean 'x2' or 'x1' or 'x0'?"),
        (
            {"weight": "x0/y0"},
            "weight: expected sums and products of x0, x1, x2, y0, y1, y2, y3, w, t, r and numbers, got 'x0 / y0'",
        ),
        ({"weight": "x0*"}, "weight: expected a sum of products, got 'x0*'"),
        ({"weight": "0.1*x0"}, "weight: expected numbers of 16 bits behind the point, got 0.1"),
        ({"weight": "r*t"}, "tag: the weight's rule reads t, expected a rule for it"),
        ({"weight": "w*w*w*w*w*w*w*w"}, "weight: 'w*w*w*w*w*w*w*w' does not fit 64 bits, expected fewer factors"),
        ({"weight": "x0", "epoch_steps": 3}, "epoch_steps: expected a power of 2 from 1 to 64, got 3"),
        ({"weight": "x0", "x1": (128, 0.1)}, "x1: expected an impulse from 0 to 127, got 128"),
        ({"weight": "x0", "y3": (1, 0.0)}, "y3: expected a time constant in seconds > 0, got 0.0"),
        ({"weight": "x0", "unit": 0.0}, "unit: expected a number > 0, got 0.0"),
        ({"weight": "x0", "sign": "both"}, "sign: unknown name 'both'; known: excitatory, inhibitory, mixed"),
    ],
)
def test_bad_rules(fields, text):
    with pytest.raises(InputError) as error:
        LearningEngine(**fields)
    assert str(error.value) == text


def test_bad_weights_and_rewards():
    def simulation(weight, rule):
        return PlasticSimulation(taught(Synapses.from_dense([[weight]]), 1), {"learns": rule})

    with pytest.raises(InputError, match=r"^projection 'learns': weights that are no whole numbers of the rule's unit$"):
        simulation(0.5, LearningEngine("x0"))
    with pytest.raises(InputError, match=r"^projection 'learns': weights 128 to 128 units, expected -128 to 127$"):
        simulation(128.0, LearningEngine("x0"))
    run = simulation(1.0, LearningEngine("r*x0*y0"))
    quiet = {"in": np.zeros((2, 1)), "teacher": np.zeros((2, 1))}
    with pytest.raises(InputError, match=r"^modulator: expected one integer for all targets, got \[0.5\]$"):
        run.run(quiet, modulator={"learns": [0.5, 0.0]})
    with pytest.raises(InputError, match=r"^modulator: expected −127 to 127 in an epoch, got 200$"):
        run.run(quiet, modulator={"learns": [200, 0.0]})
