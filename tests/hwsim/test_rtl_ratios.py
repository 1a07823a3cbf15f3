"""Reading ratios between units: values against the file's own text, and names that are wrong."""

from importlib import resources

import pytest

from hwsim.rtl_ratios import ratio, ratios
from numerics.errors import InputError


def value(*columns):
    """The value of the line of the file that holds all these columns."""
    lines = [line.split(",") for line in (resources.files("hwsim") / "data" / "rtl_ratios.csv").read_text().splitlines()]
    (found,) = [line for line in lines if set(columns) <= set(line)]
    return float(found[-1])


def test_ratios_are_those_of_the_file():
    base = value("energy", "mac_int8", "wrapping", "sparse")
    assert ratio("energy", "mac_int8", "wrapping") == 1
    assert ratio("energy", "booth_mac", "int8", data="sparse") == value("energy", "booth_mac", "int8", "sparse") / base
    assert ratio("area", "booth_mac", "int8") == value("area", "booth_mac", "int8")
    assert ratio("area", "mac_int8", "wrapping", over=("booth_mac", "int8")) == 1 / value("area", "booth_mac", "int8")
    over_random = ratio("energy", "booth_mac", "int8", data="sparse", over_data="random")
    assert over_random == value("energy", "booth_mac", "int8", "sparse")


def test_zeros_save_energy_in_every_multiplier():
    rows = {(r.unit, r.configuration, r.data): r.value for r in ratios() if r.quantity == "energy"}
    sparse = [key for key in rows if key[2] == "sparse"]
    assert sparse
    for unit, configuration, _ in sparse:
        assert rows[unit, configuration, "sparse"] < rows[unit, configuration, "random"]


@pytest.mark.parametrize(
    ("arguments", "data", "told"),
    [
        (
            ("power", "mac_int8", "wrapping"),
            None,
            "quantity: unknown name 'power'; known: area, energy, signal_energy, toggles, transistors",
        ),
        (("area", "mac_int9", "wrapping"), None, "unit: unknown name 'mac_int9'"),
        (("area", "mac_int8", "wraping"), None, "configuration: unknown name 'wraping'; did you mean 'wrapping'"),
        (("area", "mac_int8", "wrapping"), "random", "data: area depends on no data, got 'random'"),
        (("energy", "mac_int8", "wrapping"), "rand", "data: unknown name 'rand'; did you mean 'random'"),
    ],
)
def test_wrong_names_are_told(arguments, data, told):
    with pytest.raises(InputError) as caught:
        ratio(*arguments, data=data)
    assert told in str(caught.value)
