"""Notebooks as pages: text, code and the outputs of a run."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown_text import fenced

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = "HWSIM_NOTEBOOKS"
"""Environment variable: the folder where tests/notebooks leaves what it has run."""
PICTURES = {"image/svg+xml": "svg", "image/png": "png"}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def executed(path: Path) -> Any:
    """The notebook with outputs: the copy of the tests if it has the same cells, else a run of its own."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    folder = Path(os.environ.get(EXECUTED) or ROOT / "out" / "notebooks")
    copy = folder / path.name
    if copy.is_file():
        ran = nbformat.read(copy, as_version=4)
        if [(c.cell_type, c.source) for c in ran.cells] == [(c.cell_type, c.source) for c in notebook.cells]:
            return ran
    sys.path.insert(0, str(ROOT / "tests" / "notebooks"))
    try:
        from notebook_runner import execute  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        execute(notebook, Path(place))
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, copy)
    return notebook


def title_of(notebook: Any, path: Path) -> str:
    """The first heading, or the file's name."""
    for cell in notebook.cells:
        if found := re.search(r"^# (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None:
            return str(found[1])
    return path.stem


def page(notebook: Any, path: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown of a notebook, and the pictures beside it by file name."""
    parts = [f"*Notebook `notebooks/{path.name}`, as it ran for this page.*\n"]
    pictures: dict[str, bytes] = {}
    headed = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(_with_lists(cell.source) + "\n")
            if not headed and cell.source.lstrip().startswith("# "):
                headed = True
                parts.insert(0, parts.pop())
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(fenced(cell.source, "python"))
            for output in cell.get("outputs", []):
                parts.extend(_output(output, path.stem, pictures))
    return "\n".join(parts), pictures


def _with_lists(source: str) -> str:
    """Notebooks begin a list right below a line of text; Markdown here wants an empty line between."""
    return re.sub(r"^((?![-*|] |\d+\. |\s|#).*\S.*)\n(?=(?:[-*] |\d+\. |\|))", r"\1\n\n", source, flags=re.MULTILINE)


def _output(output: Any, stem: str, pictures: dict[str, bytes]) -> Iterator[str]:
    if output.output_type == "stream":
        if output.name == "stdout":
            yield fenced(_ESCAPES.sub("", output.text), "text")
        return
    data = output.get("data", {})
    for kind, suffix in PICTURES.items():
        if kind in data:
            name = f"{stem}-{len(pictures) + 1}.{suffix}"
            content = data[kind]
            pictures[name] = base64.b64decode(content) if suffix == "png" else "".join(content).encode()
            yield f"![]({name})\n"
            return
    if "text/html" in data:
        # One block without empty lines, which would end it for Markdown.
        shown = re.sub(r"\n\s*\n", "\n", "".join(data["text/html"]).strip())
        yield f'<div class="output">\n{shown}\n</div>\n'
    elif "text/plain" in data:
        yield fenced(_ESCAPES.sub("", "".join(data["text/plain"])), "text")
