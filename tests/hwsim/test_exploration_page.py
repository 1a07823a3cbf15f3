"""The page of an exploration in a headless browser: what is shown, what filters, and that nothing leaves the page.

The browser is ``chromium`` of the system, or what ``HWSIM_CHROMIUM`` names; with ``HWSIM_REQUIRE_BROWSER=1`` its absence is a
failure and not a skip.
"""

import csv
import json
import os
import re
import shlex
import shutil

import pytest
from exploration_samples import DATAFLOWS, NASTY, sample_data

from hwsim.commands._options import overrides
from hwsim.views.exploration_page import page


@pytest.fixture(scope="module")
def browser():
    lacking = ""
    executable = os.environ.get("HWSIM_CHROMIUM") or shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking = "playwright is not installed"
    else:
        lacking = "" if executable else "no chromium on this machine (HWSIM_CHROMIUM names another)"
    if lacking and os.environ.get("HWSIM_REQUIRE_BROWSER") == "1":
        pytest.fail(f"CI needs a browser: {lacking}")
    if lacking:
        pytest.skip(lacking)
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def data():
    return sample_data()


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(data), encoding="utf-8")
    return path


class Opened:
    """A page with what it said and asked for, and short ways to what the tests look at."""

    def __init__(self, browser, file, **context):
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **context})
        self.tab = self.context.new_page()
        self.said, self.asked = [], []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(file.as_uri())
        self.settle()

    def settle(self):
        """Two frames: what is due is drawn."""
        self.tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 5))))")

    def shown(self):
        self.settle()
        text = self.tab.inner_text("#count")
        count = int(text.split(" of ")[0].replace(",", ""))
        assert count == self.tab.evaluate("exploration.shown()")
        return count

    def place(self, trial):
        x, y = self.tab.evaluate(f"exploration.place({trial})")
        box = self.tab.locator("canvas.points").bounding_box()
        return box["x"] + x, box["y"] + y

    def reset(self):
        if self.tab.locator("#reset").is_enabled():
            self.tab.click("#reset")
        self.settle()

    def group(self, label):
        return self.tab.locator("#filters fieldset", has=self.tab.locator(f"legend .name:text-is('{label}')"))

    def list(self, selector):
        return dict(
            zip(
                self.tab.locator(f"{selector} dt").all_inner_texts(),
                self.tab.locator(f"{selector} dd").all_inner_texts(),
                strict=True,
            )
        )

    def table(self, selector):
        heads = [re.sub(r" [▲▼]$", "", text) for text in self.tab.locator(f"{selector} thead th").all_inner_texts()]
        rows = self.tab.evaluate(
            "s => [...document.querySelector(s).tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent))", selector
        )
        return [dict(zip(heads, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def opened(browser, file):
    made = Opened(browser, file)
    yield made
    made.context.close()


@pytest.fixture
def view(opened):
    opened.tab.evaluate("scrollTo(0, 0)")
    opened.reset()
    yield opened
    assert opened.said == []


def matching(data, keep):
    """Number of rows for which ``keep`` (a row as a mapping) is true."""
    columns = data["columns"]
    return sum(bool(keep(dict(zip(columns, row, strict=True)))) for row in zip(*columns.values(), strict=True))


# --- what the page says and asks --------------------------------------------------------------------------------------


def test_it_says_nothing_asks_nobody_and_names_stay_text(view, file):
    assert view.asked == [file.as_uri()]
    assert view.tab.evaluate("document.querySelector('h1').textContent") == NASTY
    assert view.tab.title().startswith("search </script><b")
    assert view.tab.locator("#nasty, img, #notes u, #picked i").count() == 0
    assert view.tab.inner_text("#notes") == "a note with <u>markup</u>"
    assert DATAFLOWS[1] in view.group("dataflow").inner_text()
    # The policy would stop it even if a name had become markup.
    view.tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<a id=probe onclick=\"window.hit = 1\">x</a>')")
    view.tab.evaluate("document.getElementById('probe').click()")
    assert view.tab.evaluate("window.hit") is None
    view.tab.evaluate("document.getElementById('probe').remove()")
    assert len(view.said) == 1
    assert "Content Security Policy" in view.said.pop()


# --- the picked point -------------------------------------------------------------------------------------------------


def test_a_click_shows_the_configuration_the_options_and_the_layers(view, data):
    trial = int(max(data["layers"], key=lambda t: data["columns"]["time_s"][int(t)]))
    view.tab.mouse.click(*view.place(trial))
    assert view.tab.evaluate("exploration.picked()") == trial
    row = {name: values[trial] for name, values in data["columns"].items()}
    assert "on the front" in view.tab.inner_text("#picked")
    metrics = view.list("#metrics")
    assert set(metrics) == {"time", "energy", "area"}
    value, unit = metrics["time"].split()
    assert float(value) * {"µs": 1e-6, "ms": 1e-3}[unit] == pytest.approx(row["time_s"], rel=1e-4)
    assert view.list("#configuration")["rows"] == str(row["array.rows"])

    words = shlex.split(view.tab.evaluate("document.getElementById('options').textContent"))
    assert words[::2] == ["--set"] * 4
    assert overrides(words[1::2]) == {name: row[name] for name in data["space"]}

    view.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.tab.click("#copy")
    view.tab.wait_for_function("document.getElementById('copy').textContent === 'Copied'")
    assert shlex.split(view.tab.evaluate("navigator.clipboard.readText()")) == words
    view.tab.click("#layers th >> text=time")  # as it comes: the longest first; then the shortest
    assert view.table("#layers")[0]["layer"] == "conv<0>"
    view.tab.click("#layers th >> text=time")

    layers = view.table("#layers")
    expected = sorted(data["layers"][str(trial)], key=lambda layer: -layer["time_s"])
    assert [layer["layer"] for layer in layers] == [layer["name"] for layer in expected]
    for own, layer in zip(layers, expected, strict=True):
        value, unit = own["time"].split()
        assert float(value) * {"µs": 1e-6, "ms": 1e-3}[unit] == pytest.approx(layer["time_s"], rel=6e-3)
        assert own["MACs"] == f"{layer['macs'] / 1e6:g} M"
        assert own["utilization"] == f"{100 * layer['utilization']:g} %"
    bars = view.tab.evaluate("""(() => {
      const wide = element => element.getBoundingClientRect().width;
      return [...document.querySelectorAll("#layers .bar")].map(bar => [...bar.children].map(part => wide(part) / wide(bar)));
    })()""")
    assert bars[0] == pytest.approx([0.6, 0.3, 0.1], abs=0.01)
    assert sum(bars[2]) == pytest.approx(0.4, abs=0.01)
    view.tab.click("#layers th >> text=layer")
    assert [layer["layer"] for layer in view.table("#layers")] == ["conv<0>", "conv1", "conv2"]


def test_options_read_back_as_the_configuration(view, data):
    for trial in range(0, 240, 12):
        view.tab.evaluate(f"exploration.pick({trial})")
        words = shlex.split(view.tab.evaluate("document.getElementById('options').textContent"))
        assert overrides(words[1::2]) == {name: data["columns"][name][trial] for name in data["space"]}


def test_a_point_without_layers_says_how_to_get_them(view, data):
    trial = next(i for i, on in enumerate(data["columns"]["front"]) if not on and data["columns"]["feasible"][i])
    view.tab.evaluate(f"exploration.pick({trial})")
    text = view.tab.inner_text("#nolayers")
    assert f"Layers are kept for {len(data['layers'])} of 240 points" in text
    assert "hwsim run MODEL --device DEVICE --set array.rows=" in text
    assert view.tab.locator("#layers").count() == 0


def test_a_failed_point_gives_its_reason(view, data):
    trial = data["columns"]["error"].index("rows: expected <i>fewer</i>")
    view.tab.evaluate(f"exploration.pick({trial})")
    assert "rows: expected <i>fewer</i>" in view.tab.inner_text("#picked")
    assert view.tab.locator("#metrics").count() == 0


# --- filters ----------------------------------------------------------------------------------------------------------


def test_filters_keep_what_they_say(view, data):
    assert view.shown() == 240
    view.group("rows").locator(".chip:has-text('16')").click()
    assert view.shown() == matching(data, lambda row: row["array.rows"] != 16)
    view.group("enabled").locator(".chip:has-text('true')").click()
    assert view.shown() == matching(data, lambda row: row["array.rows"] != 16 and not row["sparse.enabled"])
    time = view.group("time")
    time.locator("input[type=text]").last.fill("0.8 ms")
    time.locator("input[type=text]").last.press("Enter")

    def fast(row):
        return row["array.rows"] != 16 and not row["sparse.enabled"] and row["time_s"] is not None and row["time_s"] <= 0.8e-3

    assert 0 < matching(data, fast) == view.shown()
    # Those whose time is unknown went with the range, and come back when asked for.
    time.locator(".chip").click()

    def both(row):
        return row["array.rows"] != 16 and not row["sparse.enabled"] and (row["time_s"] is None or row["time_s"] <= 0.8e-3)

    assert matching(data, fast) < matching(data, both) == view.shown()
    assert view.tab.inner_text("#reset") == "Reset 3 filters"
    time.locator("input[type=text]").last.fill("soon")
    time.locator("input[type=text]").last.press("Enter")
    assert time.locator("input[type=text]").last.get_attribute("aria-invalid") == "true"
    assert matching(data, both) == view.shown()
    view.tab.click("#reset")
    assert view.shown() == 240


def test_a_slider_moves_one_end_and_leaves_the_other_exact(view, data):
    energy = view.group("energy")
    low = energy.locator("input[type=range]").first
    low.focus()
    for _ in range(3):
        low.press("PageUp")
    values = [e for e in data["columns"]["energy_j"] if e is not None]
    count = view.shown()
    assert 0 < count < len(values)
    assert count == sum(e >= sorted(values)[len(values) - count] for e in values)
    low.press("Home")
    assert view.shown() == 240  # no bound any more: the unknown are back
    assert energy.locator("button").is_hidden()


def test_infeasible_failed_and_stages_can_be_switched(view, data):
    points = view.group("points")
    points.locator(".chip:has-text('infeasible')").click()
    assert view.shown() == matching(data, lambda row: row["feasible"] or row["error"])
    points.locator(".chip:has-text('failed')").click()
    assert view.shown() == matching(data, lambda row: row["feasible"])
    view.group("stage").locator(".chip:has-text('random')").click()
    assert view.shown() == matching(data, lambda row: row["feasible"] and row["stage"] == "search")
    points.locator(".chip:has-text('front only')").click()
    assert view.shown() == matching(data, lambda row: row["front"] and row["stage"] == "search")


def test_brushing_an_axis_filters_all_views(view, data):
    view.tab.locator("#parallel").scroll_into_view_if_needed()
    box = view.tab.locator("canvas.lines").bounding_box()
    axis = view.tab.evaluate("exploration.axis('array.rows')")
    x, top, height = box["x"] + axis["x"], box["y"] + axis["top"], axis["height"]
    view.tab.mouse.move(x, top - 4)
    view.tab.mouse.down()
    view.tab.mouse.move(x + 3, top + 0.3 * height)
    view.tab.mouse.move(x, top + 0.5 * height)
    view.tab.mouse.up()

    def keep(row):
        return row["array.rows"] in (32, 64)  # by their logarithm, between a half and one of 8 to 64

    assert view.shown() == matching(data, keep)
    assert view.tab.evaluate("[...document.querySelectorAll('#filters fieldset')][2].querySelectorAll(':checked').length") == 2
    view.tab.wait_for_function("document.getElementById('frontcount').textContent.includes('shown')")
    view.tab.wait_for_timeout(150)
    assert len(view.table("#fronttable")) == matching(data, lambda row: keep(row) and row["front"])

    axis = view.tab.evaluate("exploration.axis('off_chip.bandwidth_bytes_per_s')")
    values = data["columns"]["off_chip.bandwidth_bytes_per_s"]
    low, high = min(values), max(values)
    bound = low**0.6 * high**0.4  # the axis is logarithmic: from the bottom up to two fifths
    x = box["x"] + axis["x"]
    view.tab.mouse.move(x, top + height + 4)
    view.tab.mouse.down()
    view.tab.mouse.move(x, top + 0.6 * height)
    view.tab.mouse.up()
    near = [
        matching(data, lambda row, f=f: keep(row) and row["off_chip.bandwidth_bytes_per_s"] <= f * bound) for f in (0.98, 1.02)
    ]
    assert near[0] <= view.shown() <= near[1]
    view.tab.mouse.click(x, top + 0.8 * height)  # lets go of that axis only
    assert view.shown() == matching(data, keep)


def test_a_box_on_the_scatter_filters_both_axes(view, data):

    def inside(row):
        return row["time_s"] is not None and row["energy_j"] is not None

    view.tab.evaluate("exploration.pick(-1)")
    trial = next(i for i, on in enumerate(data["columns"]["front"]) if on)
    x, y = view.place(trial)
    places = view.tab.evaluate("[...Array(240).keys()].map(t => exploration.place(t))")
    box = view.tab.locator("canvas.points").bounding_box()
    view.tab.mouse.move(x - 60, y - 60)
    view.tab.mouse.down()
    view.tab.mouse.move(x - 30, y - 30)
    view.tab.mouse.move(x + 2, y + 2)  # on the point
    view.tab.mouse.up()
    offsets = [(box["x"] + p[0] - x, box["y"] + p[1] - y) for p in places if p is not None]
    expected = sum(-60 <= dx <= 2 and -60 <= dy <= 2 for dx, dy in offsets)
    assert 1 < expected < matching(data, inside)
    assert view.shown() == expected
    assert view.tab.evaluate("exploration.picked()") is None  # the end of a drag picks nothing
    view.tab.mouse.dblclick(box["x"] + box["width"] - 40, box["y"] + 40)
    assert view.shown() == 240


# --- pointing, keys, tables, files ------------------------------------------------------------------------------------


def test_pointing_shows_the_configuration(view, data):
    trial = next(i for i, on in enumerate(data["columns"]["front"]) if on)
    view.tab.mouse.move(*view.place(trial))
    text = view.tab.inner_text("#tip")
    assert text.startswith(f"Trial {trial}")
    assert view.list("#tip")["rows"] == str(data["columns"]["array.rows"][trial])
    view.tab.mouse.move(2, 2)
    assert view.tab.locator("#tip").is_hidden()


def test_keys_reach_every_point_of_the_front(view, data):
    columns = data["columns"]
    by_time = sorted((i for i, on in enumerate(columns["front"]) if on), key=lambda i: columns["time_s"][i])
    canvas = view.tab.locator("canvas.points")
    canvas.focus()
    canvas.press("Home")
    canvas.press("Enter")
    assert view.tab.evaluate("exploration.picked()") == by_time[0]
    canvas.press("End")
    canvas.press("Enter")
    assert view.tab.evaluate("exploration.picked()") == by_time[-1]
    canvas.press("ArrowLeft")
    canvas.press("Enter")
    moved = view.tab.evaluate("exploration.picked()")
    assert columns["time_s"][moved] < columns["time_s"][by_time[-1]]
    canvas.press("Escape")
    assert view.tab.evaluate("exploration.picked()") is None


def test_the_front_sorts_and_picks(view, data):
    columns = data["columns"]
    front = [i for i, on in enumerate(columns["front"]) if on]

    def trials():
        return [int(row["trial"]) for row in view.table("#fronttable")]

    assert trials() == sorted(front, key=lambda i: columns["time_s"][i])
    view.tab.click("#fronttable th >> text=energy")
    assert trials() == sorted(front, key=lambda i: columns["energy_j"][i])
    view.tab.click("#fronttable th >> text=energy")
    assert trials() == sorted(front, key=lambda i: -columns["energy_j"][i])
    assert view.tab.locator("#fronttable th[aria-sort=descending]").inner_text().startswith("energy")
    view.tab.locator("#fronttable tbody tr").nth(2).locator("td").nth(1).click()
    assert view.tab.evaluate("exploration.picked()") == trials()[2]
    assert view.tab.locator("#fronttable tr.picked").get_attribute("data-trial") == str(trials()[2])


def test_the_files_hold_every_digit(view, data, tmp_path):
    columns = data["columns"]
    view.group("rows").locator(".chip:has-text('8')").click()
    view.settle()
    view.tab.wait_for_timeout(150)
    for button, keep in (("#csvfront", lambda i: columns["front"][i]), ("#csvshown", lambda i: True)):
        with view.tab.expect_download() as download:
            view.tab.click(button)
        download.value.save_as(tmp_path / "rows.csv")
        with open(tmp_path / "rows.csv", encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        expected = [i for i in range(240) if columns["array.rows"][i] != 8 and keep(i)]
        assert [int(row["trial"]) for row in rows] == expected
        for row, i in zip(rows, expected, strict=True):
            assert {name: row[name] for name in ("array.dataflow", "error")} == {
                name: columns[name][i] for name in ("array.dataflow", "error")
            }
            for name in ("time_s", "energy_j", "area_mm2", "off_chip.bandwidth_bytes_per_s"):
                assert (float(row[name]) if row[name] else None) == columns[name][i]


def test_axes_and_colours_can_be_chosen(view, data):
    tab = view.tab
    before = tab.evaluate("exploration.place(5)")
    tab.select_option("#x", label="rows")
    view.settle()
    for log in (True, False):  # rows double from choice to choice: a logarithm by itself
        assert tab.is_checked("#xlog") == log
        xs = {rows: tab.evaluate(f"exploration.place({data['columns']['array.rows'].index(rows)})")[0] for rows in (8, 16, 64)}
        assert xs[64] - xs[16] == pytest.approx((2 if log else 6) * (xs[16] - xs[8]), abs=0.1)
        tab.set_checked("#xlog", False)
        view.settle()
    tab.select_option("#color", label="stage")
    tab.select_option("#size", label="area")
    view.settle()
    assert "random" in tab.inner_text("#key")
    tab.select_option("#x", label="time")
    tab.select_option("#size", value="")
    view.settle()
    assert tab.evaluate("exploration.place(5)") == pytest.approx(before, abs=0.01)


def test_what_matters_and_the_hypervolume_are_there(view, data):
    text = view.tab.inner_text("#effects")
    assert text.count("%") == 3 * 4  # a share for each metric and parameter
    assert "80 points drawn at random" in view.tab.inner_text("#sensitivitynote")
    assert "search 0.9100" in view.tab.evaluate("document.getElementById('volume').textContent")
    assert "forest" in view.tab.inner_text("#predictors")


# --- how it looks -----------------------------------------------------------------------------------------------------

COLOURS = """selector => {
  const canvas = document.querySelector(selector), seen = new Map();
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let i = 0; i < pixels.length; i += 4) {
    const colour = pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2];
    seen.set(colour, (seen.get(colour) ?? 0) + 1);
  }
  const [most] = [...seen].sort((a, b) => b[1] - a[1])[0];
  return { many: seen.size, most: most.toString(16).padStart(6, "0") };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colours_of_the_system_and_the_button(browser, file, scheme):
    view = Opened(browser, file, color_scheme=scheme)
    paper = {"light": "ffffff", "dark": "1a1f27"}
    for selector in ("canvas.points", "canvas.lines"):
        found = view.tab.evaluate(COLOURS, selector)
        assert found["most"] == paper[scheme]
        assert found["many"] > 100
    view.tab.click("#theme")
    assert "light" in view.tab.inner_text("#theme")
    view.tab.click("#theme")
    view.settle()
    assert view.tab.evaluate(COLOURS, "canvas.points")["most"] == paper["dark"]
    assert len(view.tab.screenshot()) > 30_000
    wide = view.tab.locator("canvas.points").bounding_box()["width"]
    view.tab.set_viewport_size({"width": 1700, "height": 900})
    view.settle()
    assert view.tab.locator("canvas.points").bounding_box()["width"] > wide + 50
    assert view.said == []
    view.context.close()


def test_it_fits_a_phone(browser, file, data):
    view = Opened(browser, file, viewport={"width": 400, "height": 800}, has_touch=True, is_mobile=True, device_scale_factor=2)
    tab = view.tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    assert tab.locator("#filters").is_hidden()
    tab.click("#side > summary")
    view.group("rows").locator(".chip:has-text('16')").tap()
    assert view.shown() == matching(data, lambda row: row["array.rows"] != 16)
    trial = next(i for i, on in enumerate(data["columns"]["front"]) if on and data["columns"]["array.rows"][i] != 16)
    tab.locator("#scatter").scroll_into_view_if_needed()
    tab.touchscreen.tap(*view.place(trial))
    assert tab.evaluate("exploration.picked()") == trial
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    assert view.said == []
    view.context.close()


def odd(data, **change):
    """The data with fewer rows and other fields."""
    keep = change.pop("rows", slice(0, 40))
    columns = {name: values[keep] for name, values in data["columns"].items()}
    return {**data, "columns": {**columns, **change.pop("columns", {})}, **change}


def test_odd_explorations_open(browser, data, tmp_path):
    few = odd(data, rows=slice(0, 1), layers={}, history={}, hypervolume={}, notes=[], predictors=[])
    none = odd(
        data, columns={"feasible": [False] * 40, "front": [False] * 40, "time_s": [None] * 40, "error": ["no"] * 40}, layers={}
    )
    single = odd(data, objectives=[{"metric": "time_s", "direction": "max"}], hypervolume={}, history={})
    endless = odd(data, columns={"time_s": [float("inf")] * 5 + [1e-3 * i for i in range(1, 36)]})
    for number, one in enumerate((few, none, single, endless)):
        path = tmp_path / f"{number}.html"
        path.write_text(page(one), encoding="utf-8")
        view = Opened(browser, path)
        assert view.shown() == len(one["columns"]["trial"])
        view.tab.evaluate("exploration.pick(0)")
        assert view.said == []
        view.context.close()


@pytest.mark.exhaustive
def test_a_hundred_thousand_points_open_and_filter(browser, tmp_path):
    data = sample_data(100_000, quadratic=False)
    path = tmp_path / "large.html"
    path.write_text(page(data), encoding="utf-8")
    assert path.stat().st_size < 8e6
    view = Opened(browser, path)
    assert view.shown() == 100_000
    view.group("rows").locator(".chip:has-text('16')").click()
    assert view.shown() == matching(data, lambda row: row["array.rows"] != 16)
    trial = next(i for i, on in enumerate(data["columns"]["front"]) if on and data["columns"]["array.rows"][i] != 16)
    view.tab.mouse.move(*view.place(trial))
    view.settle()
    assert view.tab.inner_text("#tip").startswith("Trial ")
    assert json.loads(view.tab.evaluate("document.getElementById('data').textContent"))["count"] == 100_000
    assert view.said == []
    view.context.close()
