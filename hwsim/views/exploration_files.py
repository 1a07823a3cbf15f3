"""An exploration as files in a folder."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.views.files import writing

if TYPE_CHECKING:
    from hwsim.explore.exploration import Exploration


def save_exploration(exploration: Exploration, folder: Path) -> list[Path]:
    """Write data, table, page and pictures into ``folder``; returns the paths.

    The data come first, so that a view that fails does not lose them. The folder is made if need be.

    Raises:
        InputError: the folder cannot be made or written.
    """
    from hwsim.views.exploration_page import page
    from hwsim.views.exploration_plots import plot_all

    data = exploration.to_dict()
    written = []
    with writing(folder):
        for name, text in (
            ("exploration.json", json.dumps(data, allow_nan=False)),
            ("table.csv", exploration.table.to_csv(index=False, lineterminator="\n")),
        ):
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
            written.append(folder / name)
        if find_spec("pyarrow") is not None:
            table = exploration.table
            mixed = {
                name: table[name].map(str)
                for name in exploration.space.names
                if len({type(value) for value in table[name]}) > 1 and table[name].dtype == object
            }
            table.assign(**mixed).to_parquet(folder / "table.parquet", engine="pyarrow", index=False)
            written.append(folder / "table.parquet")
        (folder / "report.html").write_text(page(data), encoding="utf-8", newline="\n")
        written.append(folder / "report.html")
        written += plot_all(data, folder)
    return written
