"""Events: to and from arrays, lists and files; what is wrong in them is told in one line."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromorphic.events import Events
from numerics.errors import InputError


@st.composite
def sent(draw):
    steps, size = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    values = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), st.floats(-2, 2)]))
    flat = draw(st.lists(values, min_size=steps * size, max_size=steps * size))
    return np.array(flat, float).reshape(steps, size)


@given(sent())
def test_dense_there_and_back(dense):
    events = Events.from_dense(dense)
    np.testing.assert_array_equal(events.dense(), dense)
    assert (events.steps, events.size) == dense.shape
    assert events.count == np.count_nonzero(dense)
    assert events.counts().tolist() == [np.count_nonzero(row) for row in dense]
    assert events.rate == (np.count_nonzero(dense) / dense.size if dense.size else 0)
    assert (events.value is None) == (set(dense.ravel()) <= {0.0, 1.0})
    again = Events.from_list(events.step[::-1], events.neuron[::-1], events.values[::-1], steps=len(dense), size=events.size)
    assert again == events


@given(sent())
def test_files_there_and_back(tmp_path_factory, dense):
    folder = tmp_path_factory.mktemp("events")
    events = Events.from_dense(dense)
    events.save(folder / "e.npz")
    events.save(folder / "e.csv")
    assert Events.load(folder / "e.npz") == events
    assert Events.load(folder / "e.csv", steps=events.steps, size=events.size) == events


def test_equality():
    events = Events.from_list([0, 1], [1, 0], steps=2, size=2)
    assert events == Events.from_list([0, 1], [1, 0], [1.0, 1.0], steps=2, size=2)
    assert events != Events.from_list([0, 1], [1, 0], [1.0, 2.0], steps=2, size=2)
    assert events != Events.from_list([0, 1], [1, 0], steps=3, size=2)
    assert events != Events.from_list([0, 1], [1, 0], steps=2, size=3)
    assert events != "events"


def test_duplicates():
    lists = ([3, 0, 3, 3], [1, 1, 1, 0], [5.0, 2.0, 7.0, 1.0])
    with pytest.raises(InputError) as error:
        Events.from_list(*lists, steps=4, size=2)
    assert str(error.value) == "step 3: neuron 1 is there twice; duplicates=once or add makes one of them"
    assert Events.from_list(*lists, steps=4, size=2, duplicates="once").values.tolist() == [2, 1, 5]
    assert Events.from_list(*lists, steps=4, size=2, duplicates="add").values.tolist() == [2, 1, 12]
    assert Events.from_list(*lists[:2], steps=4, size=2, duplicates="add").values.tolist() == [1, 1, 2]
    assert Events.from_list(*lists[:2], steps=4, size=2, duplicates="once").value is None


def test_times_fall_into_their_steps(tmp_path):
    """Against fractions, of times that are written as decimals, many of them at the very edge of a step."""
    texts = [f"{k * 25}e-5" for k in range(4000)] + ["0.3", "0.0029999", "0.7000000001", "0.9999"]
    path = tmp_path / "times.csv"
    path.write_text("time_s,address\n" + "".join(f"{text},{k % 8}\n" for k, text in enumerate(texts)))
    for dt in ("1e-3", "1e-1", "7e-4", "25e-5"):
        found = Events.load(path, size=8, dt_s=float(dt), duplicates="add")
        expected = np.zeros((found.steps, 8))
        for k, text in enumerate(texts):
            expected[int(Fraction(text) / Fraction(dt)), k % 8] += 1
        np.testing.assert_array_equal(found.dense(), expected)


def test_npz_of_lists(tmp_path):
    np.savez(tmp_path / "a.npz", step=np.array([2, 0]), neuron=np.array([1, 0], np.uint16), note=np.arange(3))
    assert Events.load(tmp_path / "a.npz", size=2, steps=4) == Events.from_list([0, 2], [0, 1], steps=4, size=2)
    assert Events.load(tmp_path / "a.npz", size=2).steps == 3
    np.savez(tmp_path / "b.npz", time_s=np.array([0.25, 0.0]), address=np.array([1, 0]), value=np.array([0.5, 2.0]))
    assert Events.load(tmp_path / "b.npz", size=2, dt_s=0.1) == Events.from_list([0, 2], [0, 1], [2, 0.5], steps=3, size=2)


def test_empty_and_odd_files(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("step,neuron\n")
    assert Events.load(path, size=3).steps == 0
    assert Events.load(path, size=3, steps=2).counts().tolist() == [0, 0]
    path.write_bytes(b"\xef\xbb\xbfstep, neuron\r\n\r\n1, 2\r\n")
    assert Events.load(path, size=3) == Events.from_list([1], [2], steps=2, size=3)


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        ("", {}, "line 1: expected the header step,neuron[,value] or time_s,address[,value], got ''"),
        ("t,n\n", {}, "line 1: expected the header step,neuron[,value] or time_s,address[,value], got 't,n'"),
        ("step,neuron\n0,1\n\n1,x\n", {}, "line 4: expected a number, got 'x'"),
        ("step,neuron\n0,1\n1,2,3\n", {}, "line 3: expected 2 values, got 3 in '1,2,3'"),
        ("step,neuron\n0,1,1\n", {}, "line 2: expected 2 values, got 3 in '0,1,1'"),
        ("step,neuron\n0,1\n\n\n1,4\n", {}, "line 5: neuron: expected a whole number from 0 to 3, got 4"),
        ("step,neuron\n0,1.5\n", {}, "line 2: neuron: expected a whole number from 0 to 3, got 1.5"),
        ("step,neuron\n0.5,1\n", {}, "line 2: step: expected a whole number ≥ 0, got 0.5"),
        ("step,neuron\n-1,1\n", {}, "line 2: step: expected a whole number ≥ 0, got -1"),
        ("step,neuron\n0,1\n2,1\n", {"steps": 2}, "line 3: step: expected a whole number from 0 to 1, got 2"),
        ("step,neuron\nnan,1\n", {}, "line 2: step: expected a whole number ≥ 0, got nan"),
        ("step,neuron,value\n0,1,inf\n", {}, "line 2: value: expected a finite number, got inf"),
        ("step,neuron\n0,1\n0,1\n", {}, "step 0: neuron 1 is there twice; duplicates=once or add makes one of them"),
        ("step,neuron\n", {"dt_s": 1.0}, "dt_s: for times only, and the file gives steps"),
        ("time_s,address\n", {}, "dt_s: expected the length of a step in seconds > 0, got None"),
        ("time_s,address\n-0.1,1\n", {"dt_s": 1e-3}, "line 2: time_s: expected a time ≥ 0, got -0.10000000000000001"),
        ("time_s,address\n0.5,1\n", {"dt_s": 0.125, "steps": 4}, "line 2: time_s: expected a time from 0 to 0.5 s, got 0.5"),
        ("step,neuron\n0,1\n", {"size": None}, "size: expected the number of neurons, which the file does not state"),
    ],
)
def test_wrong_files(tmp_path, text, how, message):
    path = tmp_path / "e.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Events.load(path, **({"size": 4} | how))
    assert str(error.value) == f"e.csv: {message}"


def test_wrong_archives(tmp_path):
    def error_of(name, **how):
        with pytest.raises(InputError) as error:
            Events.load(tmp_path / name, **how)
        return str(error.value)

    (tmp_path / "text.npz").write_text("no archive")
    assert error_of("text.npz").startswith("text.npz: no readable NPZ archive (")
    np.savez(tmp_path / "names.npz", a=np.zeros(1))
    assert error_of("names.npz") == "names.npz: expected arrays step and neuron, or time_s and address, got a"
    np.savez(tmp_path / "long.npz", step=np.zeros(2, int), neuron=np.zeros(3, int))
    assert error_of("long.npz") == "long.npz: expected arrays of one length, got (2,), (3,)"
    np.savez(tmp_path / "object.npz", step=np.array([None]), neuron=np.zeros(1, int))
    assert error_of("object.npz").startswith("object.npz: no readable NPZ archive (Object arrays cannot be loaded")
    np.savez(tmp_path / "text2.npz", step=np.array(["a"]), neuron=np.zeros(1, int))
    assert error_of("text2.npz") == "text2.npz: step: expected numbers, got <U1"
    np.savez(tmp_path / "range.npz", step=np.array([0, 1]), neuron=np.array([0, 9]))
    assert error_of("range.npz", size=4) == "range.npz: event 1: neuron: expected a whole number from 0 to 3, got 9"
    np.savez(tmp_path / "stored.npz", size=np.array(2), first=np.array([0, 1]), neuron=np.array([2]))
    assert error_of("stored.npz") == "stored.npz: neuron: expected 0 to 1, got 2 to 2"
    np.savez(tmp_path / "half.npz", size=np.array(2), first=np.array([0, 1]))
    assert error_of("half.npz") == "half.npz: no array 'neuron'"
    Events.from_list([0], [1], steps=3, size=2).save(tmp_path / "whole.npz")
    assert error_of("whole.npz", size=3) == "whole.npz: size 2, expected 3"
    assert error_of("whole.npz", steps=4) == "whole.npz: steps 3, expected 4"
    assert error_of("none.npz") == f"{tmp_path / 'none.npz'}: no such file"
    assert error_of("events.txt") == "events.txt: expected an event file that ends in .csv or .npz"
    with pytest.raises(InputError, match=r"e\.txt: expected a name that ends in \.csv or \.npz"):
        Events.from_list([], [], steps=1, size=1).save(tmp_path / "e.txt")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Events(0, np.array([0]), np.array([], np.int32)), "size: expected an integer ≥ 1, got 0"),
        (
            lambda: Events(3, np.array([0, 1]), np.array([], np.int32)),
            "events: first does not divide the events among their steps",
        ),
        (lambda: Events(3, np.array([0, 2]), np.array([2, 1])), "step 0: neuron 1 after 2, expected ascending ones"),
        (lambda: Events(3, np.array([0, 0, 2]), np.array([1, 1])), "step 1: neuron 1 after 1, expected ascending ones"),
        (lambda: Events(3, np.array([0, 1]), np.array([3])), "neuron: expected 0 to 2, got 3 to 3"),
        (
            lambda: Events(3, np.array([0, 1]), np.array([1]), np.array([np.inf])),
            "value: expected 1 finite numbers, one an event",
        ),
        (lambda: Events.from_dense(np.zeros(3)), "events: expected numbers (steps, neurons), got float64 (3,)"),
        (lambda: Events.from_list([0, 1], [0], steps=2, size=1), "events: 2 steps, 1 neurons"),
        (lambda: Events.from_list([-1], [0], steps=2, size=1), "step: expected 0 to 1, got -1"),
        (lambda: Events.from_list([0], [2], steps=2, size=2), "neuron: expected 0 to 1, got 2"),
        (lambda: Events.from_list([0.5], [0], steps=2, size=2), "step: expected integers, got float64"),
        (lambda: Events.from_list([0], [0], steps=0, size=2), "step: expected none, got 0"),
        (
            lambda: Events.from_list([0], [0], steps=1, size=1, duplicates="merge"),
            "duplicates: unknown name 'merge'; known: add, once, refuse",
        ),
    ],
)
def test_wrong_arrays(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message
