"""Equations as MathML, which browsers draw by themselves: no script, no font, no request."""

from __future__ import annotations

import html
import re
from functools import cache

_SPAN = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


@cache
def mathml(latex: str, display: str) -> str:
    """An equation in LaTeX as a ``math`` element, with the LaTeX as its alternative text; ``display`` is ``inline`` or ``block``.

    Raises:
        ValueError: a command that is not known.
    """
    from latex2mathml.converter import convert

    made: str = convert(latex, display=display)
    if "\\" in made or "merror" in made:  # what the converter does not know, it leaves as it is
        raise ValueError(f"not an equation: {latex!r}")
    return made.replace("<math ", f'<math alttext="{html.escape(latex)}" ', 1)


def with_equations(page: str) -> str:
    """HTML of a page, in which the extension arithmatex has marked the equations, with MathML in their places."""

    def drawn(found: re.Match[str]) -> str:
        latex = html.unescape(found[2]).strip()
        for start, end in ((r"\(", r"\)"), (r"\[", r"\]")):
            latex = latex.removeprefix(start).removesuffix(end)
        display = "block" if found[1] == "div" else "inline"
        made = mathml(" ".join(latex.split()), display)
        return f'<div class="equation">{made}</div>' if display == "block" else made

    return _SPAN.sub(drawn, page)
