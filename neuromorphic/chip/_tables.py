"""Tables that a chip's compiled steps read and write."""

from __future__ import annotations

from typing import Any, NamedTuple

# Columns of the table of populations.
KIND, LOW, SIZE, START, RESET, SECOND, ADAPTIVE, RESONANT, UNIFORM, BIASED = range(10)
FIRST_IN, LAST_IN, FIRST_BLOCK, LAST_BLOCK, RECORD, VALUE, GIVEN, SENDER, SHIFT, AT_THRESHOLD = range(10, 20)
INPUT, SPIKING, READOUT = range(3)
ZERO, SUBTRACT, NONE = range(3)

BLOCK = 512
"""Most neurons of a block; all of a block are of one population and one core."""

# Columns of the table of projections, sorted by target.
SOURCE, RECEPTOR, ROWS, LAGS, LAGS_END, DELAYS, FACTOR = range(7)

# Columns of the counts by step and core.
ACTIVE, SPIKES, AXONS_OUT, AXONS_IN = range(4)

# Totals of a run.
WRAPPED, CLIPPED, LOST = range(3)


class State(NamedTuple):
    """Of all neurons, (neurons,) each, or empty where the network has none: inputs x, x2, currents u, u2, voltages v, w (the
    imaginary part), adaptation a, refractory steps ``left``; ``spiked``: spikes of this step."""

    x: Any
    x2: Any
    u: Any
    u2: Any
    v: Any
    w: Any
    a: Any
    left: Any
    spiked: Any


class Loihi(State):
    """Of Loihi's family: int32. The four are types of their own so that numba compiles for a chip what that chip does."""


class Fixed(State):
    """Of fixed-point integers: int64, so that nothing overflows before it saturates."""


class Event(State):
    """Of neurons that each event updates: int32."""


class Float(State):
    """Of floats: float32."""


class Parameters(NamedTuple):
    """Of all neurons, (neurons,) each, or empty.

    ``threshold``: a spike where v is above it (at it, too, for floats of a population ``AT_THRESHOLD``); ``drop``: what reset by
    subtraction takes off; ``lowest``, ``highest``: of v; ``low_u``, ``high_u``: of u; ``fraction``: bits of a factor;
    ``nearest``: what a product adds before it is rounded down; ``rounded``: bits that a float keeps after its leading one, 23
    being all.
    """

    decay_u: Any
    decay_u2: Any
    decay_v: Any
    bias: Any
    input_bias: Any
    threshold: Any
    drop: Any
    adaptation: Any
    decay_a: Any
    v_reset: Any
    cosine: Any
    sine: Any
    refractory: Any
    lowest: Any
    highest: Any
    low_u: Any
    high_u: Any
    fraction: Any
    nearest: Any
    rounded: Any


class Wiring(NamedTuple):
    """Synapses of all projections end to end. ``first``: rows of all projections, one more than sources each; ``solid``: rows
    whose targets follow one another without a gap; ``lag``: delays of each projection; ``delay``: of each source, where they
    differ; ``factor``: what each projection's weights are multiplied with."""

    projections: Any
    first: Any
    solid: Any
    target: Any
    weight: Any
    lag: Any
    delay: Any
    factor: Any


class Cores(NamedTuple):
    """Blocks (low, high, population, core; −1: several), and for each sender (of all populations end to end) the cores it sends
    to: ``core``, ``kind`` of projection and ``synapses``, ascending by core. ``home``: core of each sender, −1 outside."""

    block: Any
    first: Any
    core: Any
    kind: Any
    synapses: Any
    home: Any


class Given(NamedTuple):
    """Events of the inputs end to end: ``first`` (inputs, steps + 1), neuron, value (empty where every one is 1)."""

    first: Any
    neuron: Any
    value: Any


class Faults(NamedTuple):
    """``flip``: (flips, 4) of step, field (0 u, 1 v), neuron, bit of float32 or of two's complement, by step; ``dead``: of each
    sender; ``lost``: a spike is lost where the upper 53 bits of its number are below it; ``seed``; ``bits``: of u and v."""

    flip: Any
    dead: Any
    lost: Any
    seed: Any
    bits: Any


class Record(NamedTuple):
    """What is written: counts (steps, cores, 4), operations (steps, cores, kinds), values (steps, neurons of readouts), and u, v
    and the refractory steps (steps, neurons that are recorded); totals: wrapped sums, clipped voltages, lost spikes."""

    counts: Any
    operations: Any
    values: Any
    u: Any
    v: Any
    left: Any
    totals: Any
