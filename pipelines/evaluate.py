"""`recsys evaluate`: evaluate a saved model on users it was not trained on, or on a test file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys import splitting
from recsys.artifacts import load_model
from recsys.data.interactions import Interactions
from recsys.data.item_features.features import ItemFeatures, with_features
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import ConfigError, UnsupportedError
from recsys.evaluation import comparison
from recsys.evaluation.averages import Interval
from recsys.evaluation.comparison import ComparisonFacts
from recsys.evaluation.examples import Example, examples
from recsys.evaluation.metrics import scope_of
from recsys.evaluation.neighbors import compare_neighbors
from recsys.evaluation.results import ModelResult
from recsys.evaluation.ruled import RuledFacts, facts_of, measure_rules
from recsys.evaluation.tasks import TASKS, Task
from recsys.inference.rules import RuleSet
from recsys.models.trained import TrainedModel
from recsys.reporting.report import render
from recsys.splitting.bucket import divide_by_bucket
from recsys.splitting.holdout import Holdout, cold_and_warm
from recsys.system.atomic import new_directory, refuse_existing, write_json
from recsys.system.packages import versions
from recsys.system.storage import Location
from recsys.system.text import plural

from .cli.features import add_new_items
from .cli.models import ModelType
from .cli.options import SEED, LocationType, options_from, setting
from .cli.output import as_json, cells_text, decimal, metrics_table, print_json, say, table, wrapped
from .cli.progress import activity
from .cli.reading import read_histories
from .cli.rules import RuleFlags
from .cli.settings import TrackingOptions, comma_list
from .cli.steps import log_calibration, log_data, log_used_model
from .cli.unknown import find_unknown, note_unknown

REPEATABLE = ("strong", "weak", "cells", "leave-last-out")  # protocols whose validation part can be made again
CAUTION = (
    "Some users may have been in training; their scores are optimistic. To evaluate only on users held out from "
    "training, give the training ratings, read with the same options."
)
MARK, REPORT = "evaluation.json", "report.html"


@dataclass(frozen=True)
class EvaluateJob:
    """Which model to evaluate, on which ratings, and where the report goes."""

    model: Location
    ratings: tuple[Location, ...]
    test: Location | None = setting(None, "File of held-out rows; RATINGS are then the histories.")
    hidden: float = setting(0.2, "Without --test: share of each user's items that is held out.")
    metrics: str = setting(
        "", "Metrics, separated by commas, the main one first; the usual ones of the task by default."
    )
    item_features: Location | None = setting(
        None, "Table of items that came after training, of a model with item features: they get a column too."
    )
    neighbors: bool = setting(False, "Also measure the nearest neighbors of items, beside those by co-occurrence.")
    ruling: RuleFlags = field(default_factory=RuleFlags)
    output: Path | None = setting(None, "Folder for report.html and evaluation.json.", "--output", "-o")
    titles: Path | None = setting(None, "File of item titles, for the lists in the report.")
    examples: int = setting(3, "Users whose lists the report shows, without their ids; 0 for none.")
    overwrite: bool = setting(False, "Replace an earlier evaluation in OUTPUT.")
    seed: int = setting(0, "Seed of what is held out.", kind=SEED)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        if self.titles is not None and self.output is None:
            raise ConfigError("Expected --output FOLDER together with --titles FILE: titles are for the report.")


@dataclass(frozen=True)
class Evaluated:
    """Metrics with intervals, the users behind them, how many were left out, the account of the rows, the report.

    counts: what was measured besides users. coverage: a share; the task says of what. caution: why the metrics may be
    optimistic, else empty. neighbors: how well the nearest items of an item predict, by the way they are found. rules:
    what rules of lists and variety cost.
    """

    task: str
    metrics: Mapping[str, Interval]
    counts: Mapping[str, int]
    who: str
    left_out: int
    coverage: float
    ledger: str
    directory: Path | None
    caution: str
    neighbors: Mapping[str, Mapping[str, Interval]]
    rules: Sequence[RuledFacts]


@dataclass(frozen=True)
class Chosen:
    """What to evaluate on: the holdout, a name for how it was chosen (for the report), and who is in it.

    known: the training rows where they are at hand, else the histories; the held-out items are not in it.
    """

    holdout: Holdout
    protocol: str
    who: str
    known: csr_matrix


def run(job: EvaluateJob) -> Evaluated:
    """Evaluate the model. What can be refused is refused before the data are read."""
    if job.output is not None:
        refuse_existing(job.output, MARK, job.overwrite)
    titles = {} if job.titles is None else read_titles(job.titles)
    saved = add_new_items(load_model(job.model, job.device), job.item_features)
    if titles:
        note_unknown({"titles": find_unknown(titles, saved.items)})
    if job.neighbors and saved.model.item_weights() is None:
        saved.model.embed_items()  # refused where there are none
    task, rules = TASKS[saved.model.task], read_rules(job, saved)
    asked = tuple(comma_list(job.metrics))
    for label in asked:
        task.check(label)
    interactions = read_histories(saved, job.ratings, job.reading)
    chosen = choose_holdout(job, saved, interactions)
    chosen = replace(chosen, holdout=with_scopes(chosen.holdout, saved.item_counts))
    labels = asked or usual_metrics(task, chosen.holdout)
    holdout, caution = chosen.holdout, CAUTION if chosen.protocol == "hidden" else ""
    with job.tracking.open().run(f"evaluate {saved.model.name}", "evaluate") as tracked:
        data = log_data(tracked, interactions)
        log_used_model(tracked, saved)
        with activity(f"{saved.model.name}: evaluating on held-out data"):
            measured = task.evaluate(saved.model, holdout, labels if job.output is None else task.labels(labels))
        found = measured.only(labels)
        fit = task.describe(saved.model, measured, holdout, saved.item_counts)
        tracked.log_metrics({**found.means(), "coverage": found.coverage, **fit.counts})
        log_calibration(tracked, fit)
        neighbors = measure_neighbors(job, saved, chosen) if job.neighbors else {}
        ruled = [] if rules is None else measure_ruled(saved, holdout, rules, labels[0], job.seed)
        if job.output is not None:
            result = ModelResult([[fit]])
            more = {"data": data, "protocol": chosen.protocol, "note": caution}
            facts = cast(ComparisonFacts, {**report_facts(result, holdout, labels, job.seed), **more})
            shown = examples([result], holdout, saved.items, saved.item_counts, titles, job.examples)
            write_report(job, job.output, facts, shown, ruled)
            tracked.log_artifact(job.output / REPORT)
    return Evaluated(
        task=task.name,
        metrics=found.intervals(job.seed),
        counts=fit.counts,
        who=chosen.who,
        left_out=holdout.left_out,
        coverage=found.coverage,
        ledger=interactions.ledger.line(),
        directory=job.output,
        caution=caution,
        neighbors=neighbors,
        rules=ruled,
    )


def with_scopes(holdout: Holdout, item_counts: NDArray[np.int64]) -> Holdout:
    """The holdout with its cold items, which have no training user, and its warm ones, where some are cold."""
    return replace(holdout, scopes=scopes) if (scopes := cold_and_warm(item_counts)) else holdout


def usual_metrics(task: Task, holdout: Holdout) -> tuple[str, ...]:
    """The metrics of the task; where a cold item is to be found, also those of cold and of warm items alone."""
    found = {scope for scope in holdout.scopes if holdout.within(scope).held_out.nnz}
    labels = task.metrics_of("cold-items" if "cold" in found else None)
    return tuple(label for label in labels if scope_of(label) in ("", *found))


def measure_neighbors(job: EvaluateJob, saved: TrainedModel, chosen: Chosen) -> dict[str, dict[str, Interval]]:
    """How well the nearest items of an item predict, by the model and by what needs no model."""
    with activity("measuring neighbors"):
        compared = compare_neighbors(saved.model, chosen.known, chosen.holdout, seed=job.seed)
    return {way: neighbors.intervals(job.seed) for way, neighbors in compared.items()}


def read_rules(job: EvaluateJob, saved: TrainedModel) -> RuleSet | None:
    """The rules of the lists to measure, if any; refused for a model of ratings."""
    if job.ruling != RuleFlags() and TASKS[saved.model.task].ratings:
        raise UnsupportedError("Expected a model of lists together with rules of lists, found one of ratings.")
    return job.ruling.read(saved)


def measure_ruled(saved: TrainedModel, holdout: Holdout, rules: RuleSet, metric: str, seed: int) -> list[RuledFacts]:
    """What the rules cost, and what other weights of variety would."""
    with activity("lists by rules: evaluating on held-out data"):
        return [facts_of(lists, seed) for lists in measure_rules(saved.model, holdout, rules, metric)]


def write_report(
    job: EvaluateJob, output: Path, facts: ComparisonFacts, shown: Sequence[Example], ruled: Sequence[RuledFacts]
) -> None:
    """Write the page and its figures."""
    with new_directory(output, MARK, job.overwrite) as folder, activity("writing the report"):
        write_json(folder / MARK, {**facts, "rules": ruled})
        (folder / REPORT).write_text(render(facts, shown, ruled), encoding="utf-8")


def report_facts(result: ModelResult, holdout: Holdout, labels: Sequence[str], seed: int) -> dict[str, Any]:
    """Facts for the report of a single model: a comparison without rivals."""
    split = {
        "test_users": len(holdout),
        "test_interactions": int(holdout.relevant.sum()),
        "test_users_left_out": holdout.left_out,
    }
    ranked = comparison.rank([result], labels[0], labels, seed)
    return {**comparison.facts(ranked), "split": split, "refused": {}, "versions": versions()}


def choose_holdout(job: EvaluateJob, saved: TrainedModel, interactions: Interactions) -> Chosen:
    """Choose what to evaluate on.

    With `--test`, the users of that file. Of a model with a test bucket, the users of it. On the data of its training,
    the users held out then: the split is made again from what model.json says. Else all users of RATINGS, with a share
    of their items held out.
    """
    task = TASKS[saved.model.task]
    if job.test is not None:
        held_out = read_histories(saved, job.test, job.reading, "test")
        found = splitting.holdout(interactions, held_out, saved.items, saved.users, task.ratings)
        return Chosen(found, "test file", f"users of {job.test}", found.history)
    split, data = saved.about.get("split", {}), saved.about.get("data", {})
    if split.get("test_bucket") and not saved.model.needs_training_users:
        _, judges = divide_by_bucket(interactions, split["test_bucket"])
        hidden = splitting.hide(judges, saved.items, job.hidden, job.seed, task.ratings)
        return Chosen(hidden, "bucket", "users of the test bucket, kept out of its training", hidden.history)
    if data.get("fingerprint") == interactions.fingerprint():
        share, seed = split.get("held_out"), saved.about.get("seed")
        again_possible = split.get("protocol") in REPEATABLE and not split.get("refit")
        if not again_possible or not isinstance(share, float) or not isinstance(seed, int):
            raise UnsupportedError(
                "The model was fitted on all of these ratings: give users or rows that it has not seen (--test)."
            )
        known = with_features(interactions, None if saved.features is None else ItemFeatures(saved.items))
        again = task.validation_split(known, saved.model, share, seed)
        assert again.validation is not None  # there was one in training
        who = f"{'rows' if task.ratings else 'users'} held out from its training"
        return Chosen(again.validation, "validation", who, again.train.matrix)
    if saved.model.needs_training_users:
        raise UnsupportedError(
            f"{saved.model.name} can score only its training users: give their held-out rows with --test FILE."
        )
    hidden = splitting.hide(interactions, saved.items, job.hidden, job.seed, task.ratings)
    return Chosen(hidden, "hidden", "all users of these ratings", hidden.history)


@click.command("evaluate")
@click.argument("model", type=ModelType())
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(EvaluateJob)
def command(job: EvaluateJob) -> None:
    """Evaluate the model directory MODEL on held-out items of the users in RATINGS."""
    found = run(job)
    if as_json():
        print_json(asdict(found))
        return
    say(found.ledger)
    covered = f"{found.coverage:.1%} {TASKS[found.task].covered}"
    say(wrapped(f"Evaluated on {found.who}{cells_text(found.counts)}; {covered}."))
    if found.caution:
        say(wrapped(found.caution))
    if found.left_out:
        left_out = plural(found.left_out, "user")
        say(wrapped(f"{left_out} left out: no history or no held-out item among the items of the model."))
    say(f"\n{metrics_table(found.metrics)}")
    if found.rules:
        say(f"\n{rules_text(found.rules, next(iter(found.metrics)))}")
    if found.neighbors:
        say(f"\n{neighbors_text(found.neighbors)}")
    if found.directory is not None:
        say(f"\nReport: {found.directory / REPORT}")


def rules_text(rules: Sequence[RuledFacts], metric: str) -> str:
    """A table of what rules cost, one row for each way to make the lists."""
    rows = [
        (
            one["name"] + " *" * one["is_chosen"],
            f"{decimal(one['mean'])}  {decimal(one['low'])} – {decimal(one['high'])}",
            "" if one["distance"] is None else f"{one['distance']:.3f}",
            f"{one['coverage']:.1%}",
            f"{one['gini']:.3f}",
        )
        for one in rules
    ]
    header = ("lists by", metric, "distance", "coverage", "gini")
    return f"What the rules cost (* as given); distance of the first ten items\n\n{table(rows, header)}"


def neighbors_text(neighbors: Mapping[str, Mapping[str, Interval]]) -> str:
    """A table of how well neighbors predict, one row for each way to find them."""
    header = ("neighbors by", *next(iter(neighbors.values())))
    rows = [
        (way, *(f"{decimal(one.mean)}  {decimal(one.low)} – {decimal(one.high)}" for one in intervals.values()))
        for way, intervals in neighbors.items()
    ]
    asked = "Do the items nearest to one item of the history predict the held-out ones?"
    return f"{asked}\n\n{table(rows, header)}"
