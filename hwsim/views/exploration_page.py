"""An exploration as one interactive page: a single file without requests to anywhere, in the reader's light or dark theme."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import Any

from hwsim.views.exploration_columns import fields_of, packed
from hwsim.views.exploration_sensitivity import sensitivity
from hwsim.views.style import PALETTE
from numerics.errors import InputError

SCRIPTS = ("data", "filters", "scatter", "pointing", "parallel", "tables", "page")
"""Parts of the page's script, each a file, in the order in which they need each other."""

_BODY = """
<div class="top">
<h1 title="{name}">{name}</h1>
<span id="count" role="status" aria-live="polite"></span>
<button type="button" id="reset"></button>
<button type="button" id="theme" aria-label="colours: as the system has them, light or dark"></button>
</div>
<div class="head">
<ul class="pills" aria-label="objectives and constraints">{pills}</ul>
<div class="cards" id="cards"></div>
</div>
<noscript><p class="head">This page draws with JavaScript, which is switched off here.</p></noscript>
<div class="main">
<details class="panel" id="side" open><summary>Filters</summary><div id="filters"></div></details>
<div class="content">
<div class="pair">
<section class="panel" aria-labelledby="h-scatter">
<header><h2 id="h-scatter">Points</h2><div class="controls">
<span class="axis"><label><span>x</span> <select id="x"></select></label>
<label><input type="checkbox" id="xlog">log</label></span>
<button type="button" id="swap" title="swap the axes" aria-label="swap the axes">⇄</button>
<span class="axis"><label><span>y</span> <select id="y"></select></label>
<label><input type="checkbox" id="ylog">log</label></span>
<span class="axis"><label><span>colour</span> <select id="color"></select></label>
<label><input type="checkbox" id="clog">log</label></span>
<span class="axis"><label><span>size</span> <select id="size"></select></label></span>
</div></header>
<div class="plot" id="scatter"></div>
<div class="key" id="key"></div>
<div class="foot how"><span>Point to see a configuration, click to pick it; drag a box to filter, double-click to let go.</span>
<span class="controls"><label title="axes as wide as the points shown"><input type="checkbox" id="fit">fit axes</label>
<label title="what the filters hide stays as a shadow"><input type="checkbox" id="ghosts" checked>shadows</label></span></div>
</section>
<section class="panel pick" aria-label="the point picked"><div class="inside" id="picked"></div></section>
</div>
<section class="panel" id="layerpanel" aria-labelledby="h-layers" hidden>
<header><h2 id="h-layers">Layers</h2><span class="key" id="layerkey"></span></header>
<div id="layersof"></div>
</section>
<section class="panel" aria-labelledby="h-parallel">
<header><h2 id="h-parallel">Parallel coordinates</h2></header>
<div class="plot" id="parallel"></div>
<p class="how" id="lines"></p>
</section>
<section class="panel" aria-labelledby="h-front">
<header><h2 id="h-front">The front</h2><span class="how" id="frontcount"></span>
<button type="button" id="csvfront">Front as CSV</button><button type="button" id="csvshown">Points shown as CSV</button></header>
<div class="scroll" id="front" tabindex="0" role="region" aria-label="table of the front"></div>
</section>
<section class="panel" aria-labelledby="h-effects">
<header><h2 id="h-effects">What matters</h2></header>
<div class="multiples" id="effects"></div>
<p class="how" id="sensitivitynote"></p>
</section>
<section class="panel" id="volumepanel" aria-labelledby="h-volume">
<header><h2 id="h-volume">Hypervolume against trials</h2></header>
<div id="volume"></div>
<p class="how">Share of the box between the best values and the reference point that is dominated: more is better.</p>
</section>
<section class="panel" id="predictorpanel" aria-labelledby="h-predictors">
<header><h2 id="h-predictors">Predictors</h2></header>
<div class="scroll" id="predictors"></div>
</section>
<section class="panel" id="notespanel" aria-labelledby="h-notes">
<header><h2 id="h-notes">Notes</h2></header>
<ul class="notes" id="notes"></ul>
</section>
</div>
</div>
<footer>{footer}</footer>
<div id="tip" role="tooltip" hidden></div>
"""


def page(data: Mapping[str, Any]) -> str:
    """The page of an exploration, from ``Exploration.to_dict``.

    All views share the filters: a scatter of any two metrics or parameters, the point that was picked with its layers, parallel
    coordinates, the table of the front. Names and texts of the data are shown as they are and never become markup; a content
    security policy keeps the page from running anything but its own script and from asking anyone for anything.

    Raises:
        InputError: damaged columns.
    """
    fields = fields_of(data)
    count = len(fields[0].values)
    name = str(data.get("name", "exploration"))
    objectives = [{"metric": str(one["metric"]), "direction": str(one["direction"])} for one in data.get("objectives", ())]
    metrics = {field.name for field in fields if field.role == "metric" and field.ordered}
    for objective in objectives:
        if objective["metric"] not in metrics:
            raise InputError(f"exploration: objectives: {objective['metric']} is no column of numbers")
    content = {
        "name": name,
        "main": str(data.get("main", "sweep")),
        "count": count,
        "columns": [
            {"name": f.name, "role": f.role, "label": f.label, "unit": f.unit, "log": f.log, "packed": packed(f)} for f in fields
        ],
        "objectives": objectives,
        "notes": [str(note) for note in data.get("notes", ())],
        "predictors": [dict(one) for one in data.get("predictors", ())],
        "hypervolume": dict(data.get("hypervolume") or {}),
        "history": dict(data.get("history") or {}),
        "layers": _layers(data.get("layers") or {}),
        "sensitivity": asdict(sensitivity(data, fields=fields)),
        "palette": list(PALETTE),
    }
    pills = [f"<li>{escape(one['direction'])} {escape(one['metric'])}</li>" for one in objectives]
    pills += [f'<li class="bound">{escape(str(bound))}</li>' for bound in data.get("constraints", ())]
    footer = (
        f"{count:,} {'trial' if count == 1 else 'trials'} · hwsim {data.get('version', '')} · this page asks nobody for anything"
    )
    body = _BODY.format(name=escape(name), pills="".join(pills), footer=escape(footer))
    folder = files("hwsim.views")
    style = folder.joinpath("exploration_page.css").read_text(encoding="utf-8")
    parts = [folder.joinpath(f"exploration_{part}.js").read_text(encoding="utf-8") for part in SCRIPTS]
    script = '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}</title>\n<style>\n{style}</style>\n</head>\n<body>{body}"
        f'<script type="application/json" id="data">{_json(content)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _json(content: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(_finite(content), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(value: Any) -> Any:
    """Plain data; numbers that JSON lacks are unknown."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _layers(layers: Mapping[Any, Any]) -> dict[str, Any]:
    """Layers as rows of one list of columns; texts, which repeat, as numbers into a list."""
    names = list(dict.fromkeys(name for rows in layers.values() for row in rows for name in row))
    textual = {name: any(isinstance(row.get(name), str) for rows in layers.values() for row in rows) for name in names}
    texts: dict[str, int] = {}

    def cell(name: str, value: Any) -> Any:
        if value is None or not textual[name]:
            return value
        return texts.setdefault(str(value), len(texts))

    rows = {str(trial): [[cell(name, row.get(name)) for name in names] for row in own] for trial, own in layers.items()}
    return {"columns": [{"name": name, "text": textual[name]} for name in names], "texts": list(texts), "rows": rows}
