"""What a notebook shows at the end of a cell: every object that a user meets has a card of its own and prints on one line."""

import dataclasses
import inspect
import math
import pickle
import re
from html.parser import HTMLParser

import display_census
import display_samples as samples
import numpy as np
import pytest
import torch

import hwsim
import numerics
import photonic
from hwsim.views.cards import spell, unit_of
from neuromorphic.events import Events
from numerics._display import Listing, card, curve, cut, displayed, heat, one_line, short, table

LARGEST_CARD = 60_000
LONGEST_LINE = 300


class Page(HTMLParser):
    """Checks that elements close in order, and keeps what a page holds."""

    VOID = frozenset({"br", "hr", "img", "input", "meta", "link"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.ids = [], set(), [], set()
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "href", "xlink:href", "srcset", "action"), (tag, name, value)
            assert "javascript:" not in (value or "")
            for place in re.findall(r"url\(([^)]*)\)", value or ""):
                assert place.startswith("#"), place
            if name == "id":
                self.ids.add(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"closes what is not open: {tag}"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def shown(value):
    """The words of an object's card, checked: well formed, self-contained, of a bearable size, in no fixed black or white."""
    text = value._repr_html_()
    assert len(text) < LARGEST_CARD, (type(value), len(text))
    page = Page(text)
    assert not page.tags & {"script", "style", "iframe", "object", "embed", "link", "img"}, type(value)
    assert page.text, type(value)
    assert not re.search(r'fill="(black|white|#000|#fff)', text), type(value)
    # No data shows through as the name of a Python object at an address.
    assert not re.search(r"object at 0x|<built-in|&lt;bound method", text), (type(value), page.text)
    if not isinstance(value, torch.nn.Module | torch.optim.Optimizer):  # these print as torch has it
        line = repr(value)
        assert "\n" not in line
        assert len(line) <= LONGEST_LINE, (type(value), len(line))
        assert " object at 0x" not in line, type(value)
    return page.text


def is_shown(cls):
    """Whether it has a card, or shows itself as widgets, and a line of its own."""
    if hasattr(cls, "_ipython_display_"):
        return True
    written = inspect.unwrap(cls.__repr__)
    return hasattr(cls, "_repr_html_") and written.__code__.co_filename != "<string>"


@pytest.fixture(scope="module")
def census():
    found = display_census.met_by_users()
    assert len(found) > 400
    return found


@pytest.fixture(scope="module")
def objects():
    """Every sample, and whatever of ours lies in its fields."""
    found, pending = {}, [(room, one) for room, make in samples.ROOMS.items() for one in make()]
    every = [one for _, one in pending]
    while pending:
        room, one = pending.pop()
        if type(one) in found:
            continue
        found[type(one)] = one
        for value in fields_of(one):
            if type(value).__module__.partition(".")[0] in display_census.ROOMS and hasattr(type(value), "_repr_html_"):
                pending.append((room, value))
    return every, found


def fields_of(one):
    names = getattr(one, "__dict__", {})
    for value in list(names.values()):
        if isinstance(value, tuple | list) and value:
            value = value[0]
        elif isinstance(value, dict) and value:
            value = next(iter(value.values()))
        yield value


def test_every_class_that_a_user_meets_is_shown(census):
    missing = [f"{cls.__module__}.{cls.__qualname__}" for cls in census if not is_shown(cls)]
    assert not missing, missing


def test_cards_of_real_objects(objects):
    every, found = objects
    for one in every:
        shown(one)
    for cls, one in found.items():
        if cls is not list:
            shown(one)
    own = [cls for cls in found if "cards:" in place_of(cls) and not place_of(cls).endswith(":anything")]
    assert len(own) > 35


def place_of(cls):
    """Where a class's HTML is made, as its decorator says."""
    closure = inspect.getclosurevars(cls._repr_html_).nonlocals if hasattr(cls, "_repr_html_") else {}
    return f"{closure.get('module', '')}:{closure.get('function', '')}"


def test_every_card_of_its_own_has_a_real_object(census, objects):
    _, found = objects
    lacking = {
        place_of(cls)
        for cls in census
        if not place_of(cls).endswith((":anything", ":")) and not any(isinstance(one, cls) for one in found.values())
    }
    seen = {place_of(cls) for cls in found}
    assert lacking <= seen, lacking - seen


def test_the_general_card_stands_whatever_lies_in_the_fields(census):
    tried = 0
    for cls in census:
        if not place_of(cls).endswith(":anything") or not (dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")):
            continue
        if inspect.getclosurevars(cls._repr_html_).nonlocals["names"] or issubclass(cls, torch.nn.Module):
            continue
        one = samples.twin(cls)
        text = one._repr_html_()
        Page(text)
        assert "<script" not in text
        assert len(text) < LARGEST_CARD
        line = one_line(one)
        assert "\n" not in line
        assert len(line) <= LONGEST_LINE
        tried += 1
    assert tried > 150


def test_names_are_escaped():
    for one in samples.hostile():
        text = one._repr_html_()
        page = Page(text)
        assert "<script" not in text, type(one)
        assert "script" not in page.tags
        assert len(text) < LARGEST_CARD
        assert "script" in page.text, type(one)  # it is there, as text
        assert "\n" not in repr(one)
    text = hwsim.get_device("gemmini_16x16").simulate(samples.layers(samples.HOSTILE, hostile=samples.HOSTILE))._repr_html_()
    assert "<script" not in text


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_large_objects_print_little():
    large = samples.layers("large", 50_000)
    assert len(large.ops) == 100_000
    assert "100,000" in shown(large)
    mesh = photonic.Mesh.random(photonic.layout("rectangular", 512), seed=0)
    assert "130,816" in shown(mesh)
    assert "130,816" in shown(mesh.layout)
    rng = np.random.default_rng(0)
    events = Events.from_dense(rng.random((2000, 1000)) < 0.5)
    assert f"{events.count:,}" in shown(events)
    faults = numerics.faults.FaultMap.from_places(np.arange(200_000), np.zeros(200_000, int))
    assert "200,000" in shown(faults)
    codebook = numerics.CodebookFormat("wide", tuple(float(i) for i in range(1 << 14)))
    assert "16,384" in shown(codebook)
    many = Listing([numerics.get_format("int8")] * 5000)
    assert "and 4,980 more" in shown(many)


def test_every_device_and_its_spec_has_a_card():
    for name in hwsim.device_names():
        device = hwsim.get_device(name)
        text = shown(device)
        assert name in text
        assert all(rung in text for rung in device.fidelities)
        shown(device.spec)


# --- what they say ----------------------------------------------------------------------------------------------------


def test_figures_on_cards_are_those_of_the_objects():
    fmt = shown(numerics.get_format("e4m3fn"))
    for word in ("448", "0.015625", "0.00195312", "4 exponent" if "4 exponent" in fmt else "exponent"):
        assert word in fmt
    text = numerics.get_format("fp16")._repr_html_()
    boxes = re.findall(r"<title>(\d+) bits of (\w+)</title>", text)
    assert boxes == [("1", "sign"), ("5", "exponent"), ("10", "mantissa")]
    work = samples.layers(count=3)
    text = shown(work)
    assert f"MACs {3 * 4 * 8 * 8}" in text
    assert f"parameters {3 * 64}" in text
    plan = hwsim.plan_memory(work)
    assert f"{plan.peak_bytes} B" in shown(plan)
    mesh = photonic.decompose(np.eye(4))
    assert mesh._repr_html_().count("<title>ports ") == mesh.layout.mzis == 6


def test_a_raster_draws_each_spike_in_its_place():
    events = Events.from_list([0, 2, 2], [1, 0, 3], steps=4, size=4)
    path = re.search(r'<path d="([^"]*)" stroke="#', events._repr_html_()).group(1)
    places = sorted((float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)v", path))
    xs, ys = zip(*places, strict=True)
    assert len(places) == 3
    assert xs[1] == xs[2]
    step = (xs[1] - xs[0]) / 2
    assert step == pytest.approx(460 / 4, abs=1)
    pitch = (ys[2] - ys[1]) / 3
    assert ys[0] - ys[1] == pytest.approx(pitch, abs=0.2)


def test_a_fault_map_counts_the_faulty_bits_of_each_place():
    rng = np.random.default_rng(3)
    elements, bits = rng.permutation(500)[:200], rng.integers(0, 8, 200)
    text = numerics.faults.FaultMap.from_places(elements, bits)._repr_html_()
    columns = {int(bit): int(count) for bit, count in re.findall(r"<title>(\d+): (\d+)</title>", text)}
    assert columns == {bit: int((bits == bit).sum()) for bit in range(int(bits.max()) + 1)}


def test_campaigns_show_their_intervals():
    one, other = samples.campaign_results()
    row = one.rates("layer", "target")[0]
    assert f"{100 * row['changed']:.2f} [{100 * row['changed_low']:.2f}, {100 * row['changed_high']:.2f}]" in shown(one)
    row = other.scores()[0]
    assert f"{100 * row['score']:.2f} [{100 * row['score_low']:.2f}, {100 * row['score_high']:.2f}]" in shown(other)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("time_s", 1.5e-3, ("time", "1.5 ms")),
        ("energy_pj_per_byte", 4.764, ("energy", "4.764 pJ/byte")),
        ("bandwidth_bytes_per_s", 16e9, ("bandwidth", "16 GB/s")),
        ("energy_per_token_j", 2e-3, ("energy per token", "2 mJ")),
        ("cycles_per_mac", 2, ("cycles per mac", "2")),
        ("k", 64, ("k", "64")),
        ("split_k", (1, 2), ("split k", "1 × 2")),
        ("temperature_k", 300.0, ("temperature", "300 K")),
        ("bytes", 2048, ("bytes", "2.05 kB")),
        ("energy_j", None, ("energy", "not known")),
        ("intervals_s", (0.064, 1.0), ("intervals", "64 ms, 1 s")),
        ("utilization", 0.25, ("utilization", "25.0 %")),
        ("latency_s", {"a": 1e-6}, ("latency", "a: 1 µs")),
        ("double_buffered", True, ("double buffered", "yes")),
    ],
)
def test_names_say_their_units(name, value, expected):
    assert spell(name, value) == expected


def test_words_of_a_name_without_its_unit():
    assert unit_of("responsivity_a_per_w") == ("responsivity", "A/W", True)
    assert unit_of("tokens_per_s") == ("tokens per s", "", False)
    assert unit_of("rows") == ("rows", "", False)


# --- one line ---------------------------------------------------------------------------------------------------------


@displayed
@dataclasses.dataclass(frozen=True)
class Held:
    name: str
    values: object = ()


def test_short_objects_print_as_dataclasses_do():
    plain = dataclasses.make_dataclass("Held", [("name", str), ("values", object, ())])
    for arguments in (
        ("a",),
        ("it's", (1, 2.5, None)),
        ("b", {"x": [1]}),
        ("c", (1,)),
        ("d", frozenset({3})),
        ("e", set()),
        ("f", {3}),
    ):
        assert repr(Held(*arguments)) == repr(plain(*arguments)).replace("types.", "")


def test_objects_that_hold_themselves_print():
    held = Held("a", [])
    held.values.append(held)
    assert repr(held) == "Held(name='a', values=[…])"


def test_long_values_are_shortened():
    assert repr(Held("a", np.zeros((3, 4)))) == "Held(name='a', values=<3 × 4 float64>)"
    assert repr(Held("a", tuple(range(1000)))) == "Held(name='a', values=<tuple of 1,000>)"
    assert repr(Held("a", torch.zeros(2, 2))) == "Held(name='a', values=<2 × 2 float32>)"
    assert repr(Held("a", Held("b" * 200))) == f"Held(name='a', values={short(Held('b' * 200))})"
    assert len(repr(Held("x\n" * 500, Held("y" * 500)))) <= LONGEST_LINE
    assert "\n" not in repr(Held("x\n" * 500))
    assert cut("abcdefghij", 5) == "abc…j"


def test_a_listing_is_a_list():
    listed = Listing([Held("a"), Held("b")])
    assert listed == [Held("a"), Held("b")]
    assert repr(listed) == repr([Held("a"), Held("b")])
    assert pickle.loads(pickle.dumps(listed)) == listed
    assert "(3,000 in all)" in repr(Listing([Held("abc" * 20)] * 3000))
    assert Page(Listing([])._repr_html_()).text


# --- parts ------------------------------------------------------------------------------------------------------------


def test_parts_of_cards():
    text = card("t<b>", {"x": 1.5, "long": "word " * 60}, table([{"a": i, "b": f"<{i}>"} for i in range(20)]), notes=("n<",))
    page = Page(text)
    assert "t<b>" in page.text
    assert "and 8 more" in page.text
    assert "<11>" in page.text
    assert "<12>" not in page.text
    assert curve([1.0], [2.0], "one point") == ""
    line = curve(range(10_000), [math.nan, *range(9_999)], "many")
    assert line.count(",") <= 245
    points = re.search(r'points="([^"]*)"', curve([0, 1, 2], [0, 5, 10], "straight")).group(1)
    (x0, y0), (x1, y1), (x2, y2) = ([float(n) for n in p.split(",")] for p in points.split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 > y1 > y2
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert Page(heat([[0.0, 1.0], [None, 0.5]], "squares", titles=True)).tags >= {"svg", "path", "rect"}
    assert heat([], "nothing") == ""


def test_what_cannot_be_had_is_said():
    class Odd:
        def __init__(self):
            self.known = 1

        @property
        def unknown(self):
            raise numerics.InputError("no such thing")

    from numerics._display import anything

    assert "not known: no such thing" in Page(anything(Odd(), "known", "unknown")).text


def test_cards_are_legible_in_light_and_dark(objects):
    """Every letter of every card against its ground, as chromium paints them: at least 4.5 to 1 (WCAG 2.1, 1.4.3)."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from shutil import which

    if which("chromium") is None:
        pytest.skip("chromium is not installed")
    _, found = objects
    cards = [one._repr_html_() for one in found.values() if hasattr(type(one), "_repr_html_")]
    asked = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        for ground, ink in (("#ffffff", "#1a1a1a"), ("#111111", "#e0e0e0")):
            page = browser.new_page(viewport={"width": 900, "height": 600})
            page.on("request", lambda request: asked.append(request.url))
            page.set_content(f"<!DOCTYPE html><body style='background:{ground};color:{ink}'>{'<hr>'.join(cards)}</body>")
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            worst, letters, wide = page.evaluate(CONTRAST, ground)
            assert letters > 3000
            assert worst["ratio"] >= 4.5, worst
            assert wide <= 900  # what is wider scrolls on its own
        browser.close()
    assert asked == []


CONTRAST = """ground => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const under = rgb(getComputedStyle(document.body).backgroundColor);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = {ratio: 99}, letters = 0;
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || /^■/.test(text) || element.closest("title")) continue;
    let opacity = 1;
    for (let e = element; e && e !== document.body; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
    const style = getComputedStyle(element), svg = element.closest("svg");
    const ink = rgb(svg ? style.fill : style.color);
    const seen = ink.slice(0, 3).map((v, i) => v * opacity + under[i] * (1 - opacity));
    const [a, b] = [light(seen), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    letters += text.length;
    if (ratio < worst.ratio) worst = {ratio, text, fill: style.fill, color: style.color, opacity};
  }
  return [worst, letters, document.documentElement.scrollWidth];
}"""
