"""Widgets for notebooks: move a configuration and watch its metrics, or walk through an exploration and look into its trials.

They need ipywidgets (``pip install 'hwsim[widgets]'``). All that a hand can do, Python can: the widgets are in ``controls`` and
``filters``, and what they lead to is in plain attributes.

>>> from hwsim.explore import MachineCost
>>> from hwsim.explore.widgets import explorer
>>> cost = MachineCost("resnet18", device="gemmini_16x16")
>>> live = explorer(cost, {"array.rows": [8, 16, 32], "array.dataflow": ["ws", "os"]})  # doctest: +SKIP
>>> live  # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hwsim.explore.evaluation import Metrics, evaluate_many
from hwsim.explore.exploration import Exploration, Trial, readable
from hwsim.explore.space import Choice, Configuration, Integer, Parameter, Space
from hwsim.views.units import counted, shorten
from hwsim.views.widget_html import message, metrics_html, points_html, trial_html
from numerics.errors import InputError

if TYPE_CHECKING:
    from hwsim.report import Report

KEPT = 256
"""Configurations whose metrics an explorer keeps."""
MOST_LISTED = 300
"""Trials that a browser lists; those on the front first."""
MOST_PLACES = 200
"""Places of a slider over the values of a metric."""


def _ipywidgets() -> Any:
    """The library.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("ipywidgets")
    except ImportError:
        raise InputError("ipywidgets: not installed; pip install 'hwsim[widgets]'") from None


class _Shown:
    """What has a box of widgets: a notebook shows that."""

    box: Any

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)


class Explorer(_Shown):
    """A configuration under the hand; made by ``explorer``.

    Attributes:
        space: what varies.
        controls: parameter → its widget.
        metrics: of the configuration as it stands; empty where it has none.
        error: why it has none; empty where it has.
        report: the operators behind the metrics; None where the evaluator gives none or it is not shown.
        held: metrics that the present ones are compared with; None until some are held.
        box: all widgets together.
    """

    def __init__(self, evaluate: Callable[[Configuration], Mapping[str, Any]], space: Space, start: Mapping[str, Any]) -> None:
        widgets = _ipywidgets()
        self.space = space
        self.metrics: Metrics = {}
        self.error = ""
        self.report: Report | None = None
        self.held: Metrics | None = None
        self._evaluate = evaluate
        self._known: dict[str, Metrics] = {}
        self._waiting = False
        self.controls: dict[str, Any] = {
            name: _control(widgets, name, parameter, start[name]) for name, parameter in space.parameters.items()
        }
        reports = hasattr(evaluate, "report")
        self.with_report = widgets.Checkbox(value=reports, disabled=not reports, description="operators", indent=False)
        self.hold_button = widgets.Button(description="hold", tooltip="compare with the metrics as they stand")
        self.table, self.operators = widgets.HTML(), widgets.HTML()
        left = widgets.VBox([*self.controls.values(), widgets.HBox([self.hold_button, self.with_report])])
        self.box = widgets.VBox([widgets.HBox([left, self.table]), self.operators])
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.with_report.observe(self._changed, names="value")
        self.hold_button.on_click(lambda _: self.hold())
        self._show()

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.configuration.items())
        return shorten(f"Explorer({given}: {self.error or self.metrics})", 240)

    @property
    def configuration(self) -> Configuration:
        """Parameter → value, as the widgets stand."""
        parameters = self.space.parameters
        return {name: _value(parameters[name], control) for name, control in self.controls.items()}

    def set(self, values: Mapping[str, Any]) -> None:
        """Move some parameters at once; evaluated once.

        Args:
            values: parameter → value.

        Raises:
            InputError: an unknown parameter, a value that it cannot take.
        """
        self.space.check({**self.configuration, **values})
        with self._together():
            for name, value in values.items():
                _move(self.space.parameters[name], self.controls[name], value)

    def hold(self) -> None:
        """Compare with the metrics as they stand from now on."""
        self.held = dict(self.metrics) or None
        self._show()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Changes that are evaluated once, at their end."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
            self._show()

    def _changed(self, _: Any) -> None:
        if not self._waiting:
            self._show()

    def _row(self, configuration: Configuration) -> Metrics:
        key = repr(list(configuration.items()))
        if key not in self._known:
            if len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            try:
                self._known[key] = evaluate_many(self._evaluate, [configuration])[0]
            except Exception as error:  # a callback's error would be lost; here it is read
                return {"error": f"{type(error).__name__}: {error}"}
        return self._known[key]

    def _show(self) -> None:
        """Evaluate the configuration and show what comes of it."""
        configuration = self.configuration
        row = self._row(configuration)
        self.error = str(row.get("error", ""))
        self.metrics = {} if self.error else dict(row)
        self.report = None
        self.table.value = message(self.error) if self.error else metrics_html(self.metrics, self.held)
        self.operators.value = ""
        if self.error or not self.with_report.value:
            return
        try:
            self.report = self._evaluate.report(configuration)  # type: ignore[attr-defined]
            self.operators.value = self.report._repr_html_()
        except Exception as error:
            self.operators.value = message(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")


class Browser(_Shown):
    """An exploration to walk through; made by ``browse``.

    Attributes:
        exploration: what is shown.
        x, y: widgets that choose the axes.
        filters: parameter, metric, ``stage``, ``front`` or ``feasible`` → the widget that leaves trials out.
        point: widget that picks a trial.
        shown: trials that pass the filters, in the order of their numbers.
        picked: the trial picked; None where none passes.
        box: all widgets together.
    """

    def __init__(self, exploration: Exploration, evaluate: Any = None) -> None:
        widgets = _ipywidgets()
        self.exploration = exploration
        self.shown: list[Trial] = []
        self.picked: Trial | None = None
        self._evaluate = evaluate
        self._waiting = False
        self._front = frozenset(trial.number for trial in exploration.front_trials)
        self._numbers = _numeric(exploration)
        if not self._numbers:
            raise InputError("exploration: expected a trial with a number, got none")
        x, y = _first_axes(exploration, self._numbers)
        named = {"style": {"description_width": "initial"}}
        self.x = widgets.Dropdown(options=self._numbers, value=x, description="across", **named)
        self.y = widgets.Dropdown(options=self._numbers, value=y, description="up", **named)
        self.filters: dict[str, Any] = _filters(widgets, exploration, self._numbers)
        self.point = widgets.Dropdown(options=[("none", None)], description="trial", **named)
        self.picture, self.details, self.count = widgets.HTML(), widgets.HTML(), widgets.HTML()
        folded = widgets.Accordion([widgets.VBox(list(self.filters.values()))], titles=("filter",))
        left = widgets.VBox([widgets.HBox([self.x, self.y]), self.picture, self.count, self.point])
        self.box = widgets.VBox([widgets.HBox([left, folded]), self.details])
        for control in (self.x, self.y):
            control.observe(self._draw, names="value")
        for control in self.filters.values():
            control.observe(self._filtered, names="value")
        self.point.observe(self._picked, names="value")
        self._filtered()

    def __repr__(self) -> str:
        picked = "none" if self.picked is None else f"trial {self.picked.number}"
        return (
            f"Browser({self.exploration.name!r}: {len(self.shown):,} of {len(self.exploration.trials):,} trials, {picked} picked)"
        )

    def pick(self, number: int) -> Trial:
        """Pick a trial that is shown.

        Raises:
            InputError: no trial of this number passes the filters.
        """
        found = next((trial for trial in self.shown if trial.number == number), None)
        if found is None:
            raise InputError(f"trial: expected the number of one of {counted(len(self.shown), 'trial')} shown, got {number!r}")
        self._list(found)
        return found

    # --- what follows from the widgets ----------------------------------------------------------------------------------

    def _passes(self, trial: Trial, feasible: bool) -> bool:
        for name, control in self.filters.items():
            if name == "front":
                passes = not control.value or trial.number in self._front
            elif name == "feasible":
                passes = not control.value or feasible
            elif name == "stage":
                passes = trial.stage in control.value
            else:
                passes = _within(control, trial.value(name))
            if not passes:
                return False
        return True

    def _filtered(self, _: Any = None) -> None:
        pairs = zip(self.exploration.trials, self.exploration._feasible, strict=True)
        self.shown = [trial for trial, feasible in pairs if self._passes(trial, feasible)]
        every = len(self.exploration.trials)
        self.count.value = f"<div style='opacity:.75'>{len(self.shown):,} of {counted(every, 'trial')} shown</div>"
        there = {trial.number for trial in self.shown}
        kept = self.picked if self.picked is not None and self.picked.number in there else None
        ordered = self._ordered()
        self._list(kept if kept is not None else (ordered[0] if ordered else None))

    def _ordered(self) -> list[Trial]:
        """Those shown: the front first, by the first objective."""
        objective = self.exploration.objectives[0]

        def key(trial: Trial) -> tuple[bool, bool, float, int]:
            value = trial.value(objective.metric)
            known = isinstance(value, int | float)
            return trial.number not in self._front, not known, objective.sign * value if known else 0.0, trial.number

        return sorted(self.shown, key=key)

    def _list(self, picked: Trial | None) -> None:
        """List the trials shown, ``picked`` among them, and show it."""
        listed = self._ordered()[:MOST_LISTED]
        if picked is not None and picked not in listed:
            listed.append(picked)
        options: list[tuple[str, int | None]] = [(self._label(trial), trial.number) for trial in listed]
        self._waiting = True
        try:
            self.point.options = options or [("none", None)]
            self.point.index = listed.index(picked) if picked is not None else 0
        finally:
            self._waiting = False
        self.picked = picked
        self._draw()

    def _label(self, trial: Trial) -> str:
        objectives = (objective.metric for objective in self.exploration.objectives)
        figures = ", ".join(readable(name, trial.value(name)) for name in objectives)
        mark = "★ " if trial.number in self._front else ""
        return f"{mark}{trial.number}: {trial.error or figures}"

    def _picked(self, change: Any) -> None:
        if not self._waiting:
            self.picked = next((trial for trial in self.shown if trial.number == change["new"]), None)
            self._draw()

    def _draw(self, _: Any = None) -> None:
        number = None if self.picked is None else self.picked.number
        self.picture.value = points_html(self.shown, self.x.value, self.y.value, front=self._front, picked=number)
        self.details.value = message("no trial passes the filters") if self.picked is None else self._trial(self.picked)

    def _trial(self, trial: Trial) -> str:
        """A trial, with the report that an evaluator makes of it where its operators are not kept."""
        more = ""
        if trial.number not in self.exploration.layers and not trial.error and hasattr(self._evaluate, "report"):
            try:
                more = self._evaluate.report(trial.configuration)._repr_html_()
            except Exception as error:
                more = message(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
        return trial_html(self.exploration, trial, more)


def explorer(
    evaluate: Callable[[Configuration], Mapping[str, Any]],
    space: Space | Mapping[str, Any],
    *,
    start: Mapping[str, Any] | None = None,
) -> Explorer:
    """Sliders and lists for the parameters of a space that evaluate the configuration as it is moved, and show its metrics and,
    where the evaluator has ``report``, its operators.

    Args:
        evaluate: an evaluator (``hwsim.explore.Evaluator``): ``MachineCost``, or any function from a configuration to metrics.
        space: what varies.
        start: the configuration to begin with, or a part of it; the first values otherwise.

    Raises:
        InputError: ipywidgets is not installed; a space or a start that is none; what the evaluator's ``check`` refuses.
    """
    _ipywidgets()
    chosen = space if isinstance(space, Space) else Space(space)
    if not callable(evaluate):
        raise InputError(f"evaluate: expected a function from a configuration to metrics, got {type(evaluate).__name__}")
    if hasattr(evaluate, "check"):
        evaluate.check(chosen)
    first = {name: one.values[0] if isinstance(one, Choice) else one.low for name, one in chosen.parameters.items()}
    begin = {**first, **(start or {})}
    chosen.check(begin)
    return Explorer(evaluate, chosen, begin)


def browse(exploration: Exploration, evaluate: Any = None) -> Browser:
    """An exploration as a picture with two axes to choose, filters, and the operators of the trial that is picked.

    Args:
        exploration: what ``hwsim.sweep``, ``hwsim.search`` or ``Exploration.load`` gives.
        evaluate: the evaluator, to make the operators of a trial of which the exploration keeps none.

    Raises:
        InputError: ipywidgets is not installed; not an exploration, or one without any number.
    """
    _ipywidgets()
    if not isinstance(exploration, Exploration):
        raise InputError(f"exploration: expected what hwsim.sweep or hwsim.search gives, got {type(exploration).__name__}")
    return Browser(exploration, evaluate)


# --- parameters as widgets --------------------------------------------------------------------------------------------


def _control(widgets: Any, name: str, parameter: Parameter, value: Any) -> Any:
    """A slider where there is an order, a list otherwise."""
    style = {"description": name, "style": {"description_width": "initial"}, "layout": {"width": "28rem"}}
    if isinstance(parameter, Choice):
        made = widgets.SelectionSlider if parameter.ordered and parameter.size > 1 else widgets.Dropdown
        live = {"continuous_update": False} if made is widgets.SelectionSlider else {}
        # Places, not values: True and 1 are equal, but two values.
        control = made(options=[(str(v), i) for i, v in enumerate(parameter.values)], index=0, **style, **live)
    elif isinstance(parameter, Integer) and not parameter.log:
        top = parameter.at(parameter.size - 1)
        control = widgets.IntSlider(
            value=parameter.low, min=parameter.low, max=top, step=parameter.step, continuous_update=False, **style
        )
    elif parameter.log:
        ends = {"min": math.log10(parameter.low), "max": math.log10(parameter.high)}
        shape = ".0f" if isinstance(parameter, Integer) else ".4g"
        step = (ends["max"] - ends["min"]) / 200 or 0.1
        control = widgets.FloatLogSlider(
            value=parameter.low, base=10, step=step, readout_format=shape, continuous_update=False, **ends, **style
        )
    else:
        step = (parameter.high - parameter.low) / 200 or 0.1
        control = widgets.FloatSlider(
            value=parameter.low,
            min=parameter.low,
            max=parameter.high,
            step=step,
            readout_format=".4g",
            continuous_update=False,
            **style,
        )
    _move(parameter, control, value)
    return control


def _value(parameter: Parameter, control: Any) -> Any:
    """The value at which a widget stands."""
    if isinstance(parameter, Choice):
        return parameter.values[control.index]
    found = round(control.value) if isinstance(parameter, Integer) else float(control.value)
    # The ends of a logarithmic slider are powers, which may miss the bounds by a rounding.
    return min(parameter.high, max(parameter.low, found))


def _move(parameter: Parameter, control: Any, value: Any) -> None:
    """Bring a widget to a value, which the parameter holds."""
    if isinstance(parameter, Choice):
        control.index = next(
            i for i, own in enumerate(parameter.values) if own == value and isinstance(own, bool) is isinstance(value, bool)
        )
    else:
        control.value = value


# --- trials through widgets -------------------------------------------------------------------------------------------


def _numeric(exploration: Exploration) -> list[str]:
    """Parameters and metrics of which some trial has a number, objectives first."""
    objectives = [objective.metric for objective in exploration.objectives]
    names = dict.fromkeys((*objectives, *exploration.metrics, *exploration.space.names))
    return [name for name in names if any(_is_number(trial.value(name)) for trial in exploration.trials)]


def _first_axes(exploration: Exploration, numbers: Sequence[str]) -> tuple[str, str]:
    """Two objectives where there are two, else the one against a parameter."""
    objectives = [o.metric for o in exploration.objectives if o.metric in numbers]
    rest = [name for name in (*exploration.space.names, *numbers) if name in numbers and name not in objectives]
    if len(objectives) >= 2:
        return objectives[0], objectives[1]
    first = objectives or [numbers[0]]
    return (rest[0] if rest else first[0]), first[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _filters(widgets: Any, exploration: Exploration, numbers: Sequence[str]) -> dict[str, Any]:
    """A widget for each thing to leave trials out by; all of them let every trial pass at first."""
    style = {"style": {"description_width": "initial"}, "layout": {"width": "26rem"}}
    found: dict[str, Any] = {
        "front": widgets.Checkbox(value=False, description="on the front only", indent=False),
        "feasible": widgets.Checkbox(value=False, description="that keep all constraints only", indent=False),
    }
    stages = list(dict.fromkeys(trial.stage for trial in exploration.trials))
    if len(stages) > 1:
        found["stage"] = _several(widgets, "stage", stages, stages, style)
    bounded = [bound.metric for bound in exploration.constraints]
    objectives = [objective.metric for objective in exploration.objectives]
    for name in dict.fromkeys((*exploration.space.names, *objectives, *bounded)):
        values = [trial.value(name) for trial in exploration.trials if trial.value(name) is not None]
        if name in numbers and all(_is_number(value) for value in values):
            places = _places(sorted(set(values)))
            if len(places) > 1:
                options = [(readable(name, value), value) for value in places]
                control = widgets.SelectionRangeSlider(
                    options=options, index=(0, len(options) - 1), description=name, continuous_update=False, **style
                )
                found[name] = control
        else:
            distinct = list(dict.fromkeys((isinstance(value, bool), value) for value in values))
            if len(distinct) > 1:
                found[name] = _several(widgets, name, [str(v) for _, v in distinct], [v for _, v in distinct], style)
    return found


def _several(widgets: Any, name: str, labels: Sequence[str], values: Sequence[Any], style: Mapping[str, Any]) -> Any:
    control = widgets.SelectMultiple(
        options=list(zip(labels, values, strict=True)), description=name, rows=min(6, len(values)), **style
    )
    control.index = tuple(range(len(values)))
    return control


def _places(values: Sequence[float]) -> list[float]:
    """At most ``MOST_PLACES`` of ascending values, both ends among them."""
    if len(values) <= MOST_PLACES:
        return list(values)
    last = len(values) - 1
    return [values[round(i * last / (MOST_PLACES - 1))] for i in range(MOST_PLACES)]


def _within(control: Any, value: Any) -> bool:
    """Whether a value passes a range or is among several; one that is not known passes where nothing is left out."""
    places, index = len(control.options), tuple(control.index)
    if isinstance(control.value, tuple) and hasattr(control, "continuous_update"):  # a range
        if index == (0, places - 1):
            return True
        low, high = control.value
        return value is not None and low <= value <= high
    if len(index) == places:
        return True
    chosen = [entry for _, entry in (control.options[i] for i in index)]
    return any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in chosen)
