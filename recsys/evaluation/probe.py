"""What tuning would change: a few random settings of a model, tried on the validation part.

A comparison of untuned models favors those whose defaults happen to fit the data. A probe is no search of settings, but
shows at the price of a few fits for which model a search is worth its time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.errors import RecsysError
from recsys.evaluation.metrics import goodness
from recsys.evaluation.results import FittedResult
from recsys.models.search_space import Categorical, Space, search_space

if TYPE_CHECKING:
    from recsys.evaluation.plan import PlannedFit

LONGEST_FIT = 10.0  # seconds: models that take longer to fit are not probed


@dataclass(frozen=True)
class Probe:
    """The validation metric of a model with its own settings, and with the best of a few random ones.

    Attributes
    ----------
    model : str
        Its name in the comparison.
    trials : int
        Random settings that could be fitted; 0 where nothing was tried.
    given, best : float, optional
        The metric with the settings given, and with the best random ones.
    settings : mapping
        The best random ones.
    reason : str
        Why nothing was tried.
    gain : float
        How much better `best` is than `given`, as a share of it; 0 where it is not better.
    """

    model: str
    trials: int
    given: float | None = None
    best: float | None = None
    settings: Mapping[str, Any] | None = None
    reason: str = ""
    gain: float = 0.0


def probe_model(planned: PlannedFit, result: FittedResult, trials: int) -> Probe:
    """Fit a model with random settings and validate each fit.

    Parameters
    ----------
    planned : PlannedFit
        The fit with the settings given; its split has a validation part.
    result : FittedResult
        What came of it.
    trials : int
        How many settings to draw from the model's search space.

    Returns
    -------
    Probe
    """
    model, space = planned.model, search_space(type(planned.model.config), planned.model.uses_features)
    if not space:
        return Probe(planned.name, 0, reason="it has no settings to search")
    if (result.fit_seconds or 0) > LONGEST_FIT:
        return Probe(planned.name, 0, reason=f"a fit takes {result.fit_seconds:,.0f} s")
    fitted = result.model if planned.final is planned.split else planned.fit()
    metric, given = planned.plan.metric, planned.validate(fitted)
    rng = np.random.default_rng([planned.plan.seed, len(model.name), *model.name.encode()])
    tried: list[tuple[float, dict[str, Any]]] = []
    for _ in range(trials):
        settings = {key: draw(each, rng) for key, each in space.items()}
        try:
            candidate = replace(planned, model=type(model)(replace(model.config, **settings)))
            tried.append((candidate.validate(candidate.fit()), settings))
        except (RecsysError, MemoryError):
            continue  # these settings do not work on these data
    if not tried:
        return Probe(planned.name, 0, reason="none of the random settings could be fitted")
    best, settings = max(tried, key=lambda trial: trial[0])
    gain = max(0.0, (best - given) / abs(given)) if given and math.isfinite(given) else 0.0
    return Probe(planned.name, len(tried), goodness(metric, given), goodness(metric, best), settings, gain=gain)


def draw(space: Space, rng: np.random.Generator) -> Any:
    """Draw a value at random from what a setting may be."""
    if isinstance(space, Categorical):
        return space.options[rng.integers(len(space.options))]
    low, high = (math.log(space.low), math.log(space.high)) if space.log else (space.low, space.high)
    value = rng.uniform(low, high)
    value = math.exp(value) if space.log else value
    return int(np.clip(round(value), space.low, space.high)) if space.is_whole else float(value)


def describe_probes(probes: Sequence[Probe], metric: str) -> str:
    """Say which models were not tuned, and which of them would gain most.

    Parameters
    ----------
    probes : sequence of Probe
        Of the untuned models; empty where none were made.
    metric : str
        What was measured.

    Returns
    -------
    str
        Two or three sentences.
    """
    start = "Not tuned: all settings are defaults or were given, and a tuned model may rank differently."
    tried = [probe for probe in probes if probe.trials]
    if not tried:
        return start
    trials = max(probe.trials for probe in tried)
    best = max(tried, key=lambda probe: probe.gain)
    if best.gain:
        text = (
            f"{best.model} would gain most from tuning: the best of {trials} random settings raised its validation "
            f"quality by {best.gain:.1%} ({metric} {best.given:.4f} to {best.best:.4f})"
        )
        others = [f"{probe.model} {probe.gain:.1%}" for probe in tried if probe.gain and probe is not best]
        text += f"; {', '.join(others)}." if others else "."
    else:
        text = f"Of {trials} random settings for each model, none was better on the validation part than those used."
    slow = [f"{probe.model} ({probe.reason})" for probe in probes if probe.reason.startswith("a fit takes")]
    return " ".join([start, text, *([f"Not tried: {', '.join(slow)}."] if slow else [])])
