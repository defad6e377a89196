"""`recsys explain`: why an item is recommended to a user, and whether such reasons can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from recsys.artifacts import load_model
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import ConfigError, DataError
from recsys.evaluation.averages import Average, Interval
from recsys.explain.explainers import by_contributions, rivals
from recsys.explain.fidelity import CURVES, choose_users, join_users, measure_fidelity
from recsys.explain.reasons import Explanation, Reason, explain_item, sentence
from recsys.models.contributions import MEANING
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location
from recsys.system.text import plural, printable

from .cli.histories import OneHistory, check_history, named, read_history
from .cli.models import ModelType
from .cli.options import SEED, options_from, setting
from .cli.output import as_json, decimal, print_json, say, shorten, table, wrapped
from .cli.progress import watch
from .cli.reading import read_histories
from .cli.unknown import UnknownIds, find_unknown, note_unknown

OWN = "contributions"  # the explainer that is the model's own


@dataclass(frozen=True)
class ExplainJob:
    """The model, the user and the item; or the ratings to evaluate explanations on."""

    model: Location
    user: str | None = setting(None, "Id of the user in the ratings file.")
    ratings: Location | None = setting(None, "Ratings with the history of the user.")
    items: str | None = setting(None, "Instead of --user: item ids of a history, separated by commas.")
    item: str | None = setting(None, "Id of the item to explain; the first recommendation by default.")
    n: int = setting(5, "Reasons shown.", "-n")
    titles: Path | None = setting(None, "File of item titles.")
    evaluate: bool = setting(False, "Measure on users of --ratings how true the explanations are.")
    users: int = setting(200, "With --evaluate: users to measure on, drawn at random.")
    seed: int = setting(0, "Seed of --evaluate.", kind=SEED)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        if min(self.n, self.users) < 1:
            raise ConfigError(f"Expected n and users of at least 1, found {min(self.n, self.users)}.")


@dataclass(frozen=True)
class Explained:
    """The explanation of an item, the sentence, titles of the items in it, and the ids that the model does not know."""

    explanation: Explanation
    sentence: str
    titles: Mapping[str, str]
    unknown: Mapping[str, UnknownIds]


@dataclass(frozen=True)
class Evaluated:
    """Curves of each explainer, summed up, with the differences of the model's own from the others, by curve.

    seconds: of one explanation. users: on how many it was measured.
    """

    model: str
    method: str
    users: int
    means: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Interval]]
    seconds: Mapping[str, float]


def run(job: ExplainJob) -> Explained | Evaluated:
    """Explain an item, or evaluate explanations. What can be refused is refused before ratings are read."""
    if job.evaluate:
        if job.ratings is None or (job.user, job.items, job.item, job.titles) != (None, None, None, None):
            raise click.UsageError("Expected --evaluate with --ratings FILE, and without a user, an item and titles.")
    else:
        check_history(job.user, job.ratings, job.items)
    saved = load_model(job.model, job.device)
    saved.model.check_explainable()
    return evaluate(job, saved) if job.evaluate else explain(job, saved)


def explain(job: ExplainJob, saved: TrainedModel) -> Explained:
    """Explain one item for one history."""
    titles = {} if job.titles is None else read_titles(job.titles)
    position = None if job.item is None else int(saved.items.positions([job.item])[0])
    if position == -1:
        raise DataError(f"Expected an item that the model knows, found {job.item!r}: it is not in its catalog.")
    history = read_history(saved, job.user, job.ratings, job.items, job.reading)
    unknown = {"history": history.unknown}
    if titles:
        unknown["titles"] = find_unknown(titles, saved.items)
    data = saved.to_matrix(history.interactions)
    found = explain_item(saved, data, int(data.users.positions([history.user])[0]), position, job.n)
    names = [name_of(reason.item_id, titles) for reason in found.reasons]
    shown = {str(one): titles.get(str(one), "") for one in (found.item_id, *ids_of(found.reasons + found.against))}
    return Explained(found, sentence(names, saved.model.task, are_liked(history)), shown, unknown)


def evaluate(job: ExplainJob, saved: TrainedModel) -> Evaluated:
    """Measure the fidelity of the model's explanations beside those of simple rivals."""
    assert job.ratings is not None
    data = saved.to_matrix(read_histories(saved, job.ratings, job.reading))
    rows = choose_users(data.matrix, job.users, job.seed)
    explainers = {OWN: by_contributions(saved.model), **rivals(data.matrix, job.seed)}
    seen = None if data.seen is None else data.seen[rows]
    measured = measure_fidelity(saved.model, data.matrix[rows], explainers, seen)
    found = join_users(watch(measured, len(rows), f"{saved.model.name}: taking histories apart", "user"))
    averages = {name: {curve: Average.of(one.means(curve)) for curve in CURVES} for name, one in found.items()}
    own = averages[OWN]
    return Evaluated(
        saved.model.name,
        saved.model.explained_by,
        len(own["POS"]),
        {name: {curve: mean.interval(job.seed) for curve, mean in one.items()} for name, one in averages.items()},
        {
            name: {curve: own[curve].difference(mean, job.seed) for curve, mean in one.items()}
            for name, one in averages.items()
            if name != OWN
        },
        {name: one.seconds for name, one in found.items()},
    )


def are_liked(history: OneHistory) -> bool:
    """Whether only ratings of a minimum count as preferences: the items of the history are then known to be liked."""
    return history.interactions.policies.get("min_rating") is not None


def ids_of(reasons: Sequence[Reason]) -> list[Any]:
    """The ids of the items."""
    return [reason.item_id for reason in reasons]


def name_of(item: Any, titles: Mapping[str, str]) -> str:
    """The title of an item, or its id without one."""
    return named(item, titles)["title"] or str(item)


@click.command("explain")
@click.argument("model", type=ModelType())
@options_from(ExplainJob)
def command(job: ExplainJob) -> None:
    """Explain a recommendation of the model directory MODEL by the items of the user's history.

    With --evaluate: measure whether the items that explanations name are those the recommendations depend on.
    """
    found = run(job)
    if as_json():
        print_json(asdict(found))
    elif isinstance(found, Explained):
        note_unknown(found.unknown)
        say(text(found))
    else:
        say(fidelity_text(found))


def text(found: Explained) -> str:
    """What is explained, the sentence, the reasons, what speaks against, and what the numbers mean."""
    one = found.explanation
    title = found.titles[str(one.item_id)]
    place = "in the history" if one.rank is None else f"rank {one.rank:,} of {plural(one.candidates, 'unseen item')}"
    about = printable(f"{title} ({one.item_id})" if title else str(one.item_id), single_line=True)
    parts = [wrapped(f"{about}: score {decimal(one.score)}, {place}"), wrapped(printable(found.sentence, True))]
    if one.reasons:
        parts.append(reasons_table(one.reasons, found.titles))
    if one.against:
        names = (f"{name_of(reason.item_id, found.titles)} ({decimal(reason.contribution)})" for reason in one.against)
        parts.append(wrapped(printable(f"Against it: {'; '.join(names)}", True)))
    supporting = f"{one.supporting:,} of {plural(one.history, 'item')} of the history support it"
    parts.append(wrapped(f"{supporting}. Method: {one.method}; {MEANING[one.method]}."))
    return "\n\n".join(parts)


def reasons_table(reasons: Sequence[Reason], titles: Mapping[str, str]) -> str:
    """A line for each reason."""
    titled = any(titles[str(reason.item_id)] for reason in reasons)
    rows = [
        (
            number,
            reason.item_id,
            *([shorten(titles[str(reason.item_id)], 40)] if titled else []),
            decimal(reason.contribution),
            f"{reason.share:.1%}",
        )
        for number, reason in enumerate(reasons, start=1)
    ]
    header = ("reason", "item", *(["title"] if titled else []), "contribution", "share")
    return table(rows, header, left=len(header) - 2)


def fidelity_text(found: Evaluated) -> str:
    """The curves of each explainer, and the differences from the model's own with their intervals."""
    rows = [
        (name, *(decimal(curves[curve].mean) for curve in CURVES), f"{1000 * found.seconds[name]:.1f}")
        for name, curves in found.means.items()
    ]
    arrows = [f"{curve} {'↓' if better == 'lower' else '↑'}" for curve, better in CURVES.items()]
    differences = [
        (f"{OWN} - {name}", curve, f"{gap.mean:+.4f}", f"{gap.low:+.4f} – {gap.high:+.4f}")
        for name, gaps in found.differences.items()
        for curve, gap in gaps.items()
    ]
    users = plural(found.users, "user")
    return "\n\n".join(
        [
            wrapped(f"First recommendation of {users}, explained by {found.model} ({found.method})"),
            table(rows, ("explainer", *arrows, "ms")),
            table(differences, ("difference", "curve", "mean", "95 % interval"), left=2),
            wrapped("↓ lower is better, ↑ higher is better. Explainers can be compared on one model only."),
        ]
    )
