"""Class decorators: what a notebook shows of an object, figures with the units that their names say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from numerics._display import Listing, displayed_by

__all__ = ["displayed", "displayed_by", "displaying", "listed"]

T = TypeVar("T")


def listed(entries: Iterable[T], show: str = "hwsim.views.cards:listing") -> list[T]:
    """A list that a notebook shows as a table, by ``show`` (``package.module:function``)."""
    return Listing(entries, show)


def displayed(cls: type[T]) -> type[T]:
    """The card of ``hwsim.views.cards.anything``, for objects whose fields say it all."""
    return displayed_by("hwsim.views.cards:anything")(cls)


def displaying(*names: str) -> Callable[[type[T]], type[T]]:
    """The card of ``hwsim.views.cards.anything``, with further attributes beside the fields."""
    return displayed_by("hwsim.views.cards:anything", *names)
