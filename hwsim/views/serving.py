"""Serving figures as a table for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hwsim.serving import Serving
from hwsim.views.table import WIDTH_OF_FILES
from hwsim.views.units import percent, si
from numerics.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

_ROWS: tuple[tuple[str, Callable[[Serving], str]], ...] = (
    ("time to first token", lambda s: si(s.time_to_first_token_s, "s")),
    ("time per output token", lambda s: si(s.time_per_output_token_s, "s")),
    ("  shortest, longest cache", lambda s: f"{si(s.first_step_s, 's')}, {si(s.last_step_s, 's')}"),
    ("latency of the answer", lambda s: si(s.latency_s, "s")),
    ("tokens/s, whole answer", lambda s: f"{s.tokens_per_s:,.1f}"),
    ("tokens/s, after the first", lambda s: f"{s.decode_tokens_per_s:,.1f}"),
    ("MFU of the prompt", lambda s: percent(s.prefill_mfu)),
    ("MFU of a step", lambda s: percent(s.decode_mfu)),
    ("bandwidth use of a step", lambda s: "–" if s.decode_bandwidth_use is None else percent(s.decode_bandwidth_use)),
    ("KV cache", lambda s: si(s.kv_cache_bytes, "B")),
    ("weights", lambda s: si(s.weight_bytes, "B")),
    ("energy per output token", lambda s: si(s.energy_per_token_j, "J")),
    ("formats, fidelity", lambda s: f"{s.recipe}, {s.fidelity}"),
    ("times are", lambda s: s.origin),
)


def print_serving(figures: Sequence[Serving], console: Console | None = None) -> None:
    """Print serving figures side by side, a column each.

    Raises:
        InputError: nothing to print.
    """
    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    if not figures:
        raise InputError("serving: expected figures of at least one device, got none")
    if console is None:
        console = RichConsole() if sys.stdout.isatty() else RichConsole(width=WIDTH_OF_FILES)
    one = figures[0]
    title = f"{one.model}: {one.batch} × ({one.prompt_tokens} prompt + {one.output_tokens} output tokens)"
    console.print(Text(title, style="bold"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("")
    for served in figures:
        table.add_column(served.device, justify="right", overflow="fold")
    for label, text in _ROWS:
        table.add_row(Text(label), *(Text(text(served)) for served in figures))
    console.print(table)
    for served in figures:
        for note in served.notes:
            console.print(Text(f"{served.device}: {note}", style="dim"))
