"""Serving figures against sums over every step, and against sizes known from the models."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hwsim import serve
from hwsim.api import workload_from
from hwsim.cli import main
from hwsim.operators import Matmul
from hwsim.registry import get_device
from hwsim.workload import chain
from numerics import InputError


def test_all_steps_from_three_are_the_sum_of_each():
    device = get_device("tpu_v1")
    served = serve("gpt2", device=device, batch=2, prompt_tokens=40, output_tokens=12)
    steps = [device.simulate(workload_from("gpt2", batch=2, kv_len=length, phase="decode")).time_s for length in range(40, 51)]
    assert served.time_per_output_token_s == pytest.approx(sum(steps) / 11, rel=2e-3)
    assert (served.first_step_s, served.last_step_s) == (steps[0], steps[-1])
    first = device.simulate(workload_from("gpt2", batch=2, seq_len=40, phase="prefill")).time_s
    assert served.time_to_first_token_s == first
    assert served.latency_s == pytest.approx(first + sum(steps), rel=2e-3)
    assert served.tokens_per_s == pytest.approx(2 * 12 / served.latency_s)
    assert served.decode_tokens_per_s == pytest.approx(2 / served.time_per_output_token_s)


def test_bytes_are_those_of_the_architecture():
    """Llama 3 8B: 32 layers of 8 key/value heads of 128; int8 on this device."""
    served = serve("llama3_8b", device="tpu_v1", batch=3, prompt_tokens=100, output_tokens=21, fidelity="analytic")
    assert served.kv_cache_bytes == 3 * 32 * 2 * 8 * 128 * (100 + 20)
    assert served.weight_bytes == pytest.approx(8.03e9, rel=1e-3)
    assert served.decode_bandwidth_use is None  # the memory of that rung is ideal


def test_one_output_token_needs_no_step():
    served = serve("gpt2", device="tpu_v1", prompt_tokens=16, output_tokens=1)
    assert served.time_per_output_token_s == served.decode_tokens_per_s == served.decode_energy_j == 0
    assert served.latency_s == served.time_to_first_token_s
    assert 0 < served.decode_bandwidth_use <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet50", "--device", "tpu_v1"], "'resnet50' does not answer token by token"),
        (["gpt2", "--device", "tpu_v1", "--output", "0"], "output_tokens: expected an integer ≥ 1, got 0"),
        (["gpt2", "--device", "tpu_v9"], "unknown name 'tpu_v9'"),
    ],
)
def test_bad_requests_are_one_line(capsys, words, message):
    assert main(["serve", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_command_prints_what_the_function_returns(capsys):
    words = ["serve", "gpt2", "--device", "tpu_v1", "--prompt", "16", "--output", "3"]
    assert main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["serving"][0]
    served = serve("gpt2", device="tpu_v1", prompt_tokens=16, output_tokens=3)
    assert data == served.to_dict()
    assert not served.notes
    assert main(words) == 0
    assert "time to first token" in capsys.readouterr().out


def test_sizes_must_be_whole():
    with pytest.raises(InputError, match=r"batch: expected an integer ≥ 1, got 1\.5"):
        serve("gpt2", device="tpu_v1", batch=1.5)


class Parabola:
    """A device whose time for a step is a parabola in the length of the cache."""

    kind, name, fidelities, default_fidelity = "parabola", "parabola", ("only",), "only"
    spec = get_device("tpu_v1").spec

    @classmethod
    def bundled(cls):
        return {}

    @classmethod
    def from_data(cls, data, *, source):
        return cls()

    def emulate(self, module, recipe=None, *, fidelity=None, example_inputs=None, seed=0):
        raise NotImplementedError

    @staticmethod
    def step_s(length):
        return 1e-3 + 2e-6 * length + 3e-9 * length**2

    def simulate(self, workload, *, fidelity=None, inputs=None, parameters=None):
        """One operator that takes the whole time; energy 2 J/s of it, the prompt's is 5 J."""
        length = workload.metadata.get("kv_len")
        time_s = 0.25 if length is None else self.step_s(length)
        report = get_device("tpu_v1").simulate(chain("one", [Matmul(name="one", m=64, n=64, k=64)]))
        row = replace(
            report.ops[0], time_s=time_s, cycles=1.0, compute_cycles=1.0, stall_cycles=0.0, overhead_cycles=0.0,
            energy_j={"all": 5.0 if length is None else 2 * time_s}, utilization=0.5 if length is None else 1e-4 * length,
        )  # fmt: skip
        return replace(report, ops=(row,))


def test_a_parabola_is_summed_exactly():
    served = serve("gpt2", device=Parabola(), batch=3, prompt_tokens=100, output_tokens=22)
    # Three of the 21 steps, at caches of 100, 110 and 120 tokens; Simpson's rule over an even spread of lengths.
    first, middle, last = (Parabola.step_s(length) for length in (100, 110, 120))
    decode = 21 * (first + 4 * middle + last) / 6
    assert served.time_to_first_token_s == 0.25
    assert served.time_per_output_token_s == pytest.approx(decode / 21, rel=1e-12)
    assert served.latency_s == pytest.approx(0.25 + decode, rel=1e-12)
    assert (served.first_step_s, served.last_step_s) == (first, last)
    assert served.tokens_per_s == pytest.approx(3 * 22 / (0.25 + decode))
    assert served.decode_tokens_per_s == pytest.approx(3 * 21 / decode)
    assert served.prefill_energy_j == 5
    assert served.decode_energy_j == pytest.approx(2 * decode)
    assert served.energy_per_token_j == pytest.approx((5 + 2 * decode) / (3 * 22))
    assert served.prefill_mfu == pytest.approx(0.5)
    assert served.decode_mfu == pytest.approx(1e-4 * 110)
