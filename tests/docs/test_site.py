"""The built site: no link to nowhere, nothing loaded from elsewhere, every page drawn by a browser without a complaint.

``HWSIM_SITE`` names the folder of a site; ``make docs`` builds one and runs this. Where the browser is missing, what needs it is
skipped, unless ``HWSIM_REQUIRE_BROWSER`` is set.
"""

import functools
import html.parser
import http.server
import json
import os
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

SITE = Path(os.environ.get("HWSIM_SITE") or "/nonexistent")
pytestmark = pytest.mark.skipif(
    "HWSIM_SITE" not in os.environ, reason="HWSIM_SITE: no built site; make docs builds and tests one"
)

LOADING = {
    "img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "use": "href",
}  # fmt: skip
"""Element → the attribute by which it loads something."""
LOADING_RELS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload", "manifest", "prefetch"}
_CSS_URL = re.compile(r"url\(\s*['\"]?(?!data:|#)([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Reader(html.parser.HTMLParser):
    """Anchors, links and loads of a page."""

    def __init__(self):
        super().__init__()
        self.anchors, self.links, self.loads, self.title = set(), [], [], ""

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        self.anchors |= {has[name] for name in ("id", "name") if has.get(name)}
        if tag == "a" and has.get("href"):
            self.links.append(has["href"])
        elif tag == "link" and has.get("href"):
            loading = LOADING_RELS & set((has.get("rel") or "").split())
            (self.loads if loading else self.links).append(has["href"])
        elif tag in LOADING and has.get(LOADING[tag]):
            self.loads.append(has[LOADING[tag]])
        if has.get("srcset"):
            self.loads += [part.split()[0] for part in has["srcset"].split(",")]
        self.loads += [a or b for a, b in _CSS_URL.findall(has.get("style") or "")]


@functools.cache
def pages():
    found = {}
    for path in sorted(SITE.rglob("*.html")):
        reader = Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        found[path] = reader
    return found


def elsewhere(address):
    return bool(urlsplit(address).scheme or address.startswith("//"))


def target_of(page, address):
    """The file that an address of a page means, and the anchor in it."""
    path, anchor = urldefrag(address)
    path = unquote(urlsplit(path).path)
    target = page if not path else SITE / path.lstrip("/") if path.startswith("/") else page.parent / path
    return (target / "index.html" if target.is_dir() else target).resolve(), unquote(anchor)


def test_there_is_a_site_with_every_part():
    names = {path.relative_to(SITE).as_posix() for path in pages()}
    assert {
        "index.html",
        "getting-started.html",
        "results/latency.html",
        "results/scores.html",
        "reference/devices.html",
    } <= names
    from hwsim.registry import device_classes

    assert {f"reference/specs/{kind}.html" for kind in device_classes()} <= names
    notebooks = Path(__file__).parents[2] / "notebooks"
    assert {f"studies/{path.stem}.html" for path in notebooks.glob("*.ipynb")} <= names


def test_no_link_leads_nowhere():
    known = {path.resolve(): reader.anchors for path, reader in pages().items()}
    broken = []
    for page, reader in pages().items():
        for address in reader.links:
            if elsewhere(address):
                assert urlsplit(address).scheme in ("https", "mailto"), f"{page.name}: {address}"
                continue
            target, anchor = target_of(page, address)
            if target not in known and not target.is_file():
                broken.append(f"{page.relative_to(SITE)}: {address}")
            elif anchor and target in known and anchor not in known[target] and anchor != "__top":
                broken.append(f"{page.relative_to(SITE)}: {address}: no such anchor")
    assert not broken


def test_nothing_is_loaded_from_elsewhere():
    for page, reader in pages().items():
        for address in reader.loads:
            if address.startswith("data:"):
                continue
            assert not elsewhere(address), f"{page.relative_to(SITE)} loads {address}"
            target, _ = target_of(page, address)
            assert target.is_file(), f"{page.relative_to(SITE)} loads {address}, which is not there"
    for sheet in SITE.rglob("*.css"):
        for first, second in _CSS_URL.findall(sheet.read_text(encoding="utf-8")):
            assert not elsewhere(first or second), f"{sheet.name} loads {first or second}"


def test_equations_are_drawn_and_options_are_listed():
    text = (SITE / "packages" / "numerics.html").read_text(encoding="utf-8")
    assert text.count("<math ") > 10
    for page in pages():
        content = page.read_text(encoding="utf-8")
        assert 'class="arithmatex"' not in content, page
        assert "<!-- options:" not in content, page
        assert not re.search(r"<merror|\\\(|\\frac", re.sub(r'(?s)alttext="[^"]*"|<(pre|code)\b.*?</\1>', "", content)), page


def test_files_that_a_page_tells_of_have_their_names():
    names = re.findall(r'class="filename">([^<]+)<', (SITE / "how-to" / "rtl-unit.html").read_text(encoding="utf-8"))
    changed = "in rtl/configurations.yaml"
    assert names == ["rtl/saturating_add.sv", "rtl/benches/saturating_add_bench.py", changed, changed]
    assert not any("<!-- file:" in page.read_text(encoding="utf-8") for page in pages())


def test_pages_with_a_broken_link_and_a_foreign_script_are_found(tmp_path):
    reader = Reader()
    reader.feed(
        '<a href="b.html#x">b</a><script src="https://cdn.e/x.js"></script><img src="c.png" style="background: url(//d.e/f)">'
    )
    assert reader.links == ["b.html#x"]
    assert [elsewhere(address) for address in reader.loads] == [True, False, True]
    assert target_of(tmp_path / "a.html", "b.html#x") == ((tmp_path / "b.html").resolve(), "x")


# --- in a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    chromium = os.environ.get("HWSIM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    missing = None if chromium else "chromium is not installed"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "playwright is not installed"
    if missing:
        assert not os.environ.get("HWSIM_REQUIRE_BROWSER"), missing
        pytest.skip(missing)
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_every_page_draws_without_a_complaint(browser, address):
    complaints, asked = [], set()
    page = browser.new_page()
    page.on(
        "console",
        lambda message: complaints.append(f"{page.url}: {message.text}") if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    # The next page is asked for while a worker still loads: that request is aborted, and nothing is wrong with it.
    page.on(
        "requestfailed",
        lambda r: None if "ERR_ABORTED" in (r.failure or "") else complaints.append(f"{page.url}: {r.url} failed"),
    )
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    # Every page would build the whole index of the search anew, most of the time here; the next test searches in it.
    index = json.loads((SITE / "search" / "search_index.json").read_text(encoding="utf-8"))
    index["docs"] = index["docs"][:1]
    page.route("**/search_index.json", lambda route: route.fulfill(json=index))
    for path in pages():
        page.goto(f"{address}/{path.relative_to(SITE).as_posix()}", wait_until="load")
        if path.name == "404.html":
            continue
        assert page.locator("article h1").first.inner_text().strip(), f"{path} has no heading"
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            complaints.append(f"{page.url}: {wide} pixels wider than the window")
    assert not complaints
    assert asked <= {urlsplit(address).netloc, ""}


def test_search_finds_a_page_and_the_palette_changes(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/index.html")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("label[title=Dark]").click()
    page.wait_for_function("document.body.getAttribute('data-md-color-scheme') === 'slate'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.keyboard.press("/")
    page.locator("input.md-search__input").fill("stochastic rounding")
    page.wait_for_selector(".md-search-result__item a")
    assert "rounding" in page.locator(".md-search-result__list").inner_text().lower()
