"""`recsys promote`: make the registered challenger the champion, if it is better on users new to both."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from recsys.artifacts import load_model
from recsys.data.reading import ReadingOptions
from recsys.errors import ConfigError, GateError, RegistryError, UnsupportedError
from recsys.evaluation.challenge import Challenge, challenge
from recsys.evaluation.tasks import TASKS
from recsys.models.trained import TrainedModel
from recsys.splitting.bucket import divide_by_bucket
from recsys.system.storage import Location
from recsys.system.text import plural
from recsys.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelAddress, ModelRegistry

from .cli.options import SEED, LocationType, options_from, setting
from .cli.output import as_json, decimal, print_json, say, wrapped
from .cli.progress import activity
from .cli.reading import read_histories
from .cli.settings import TrackingOptions
from .cli.steps import log_data


@dataclass(frozen=True)
class PromoteJob:
    """Which registered model, judged on which ratings, by which rule."""

    name: str
    ratings: tuple[Location, ...]
    metric: str = setting("ndcg@100", "Metric of lists by which the models are compared.")
    min_gain: float = setting(
        0.002, "Smallest mean gain; the 95 % interval must exclude zero as well.", kind=click.FloatRange(0)
    )
    non_inferior: float | None = setting(
        None, "Instead: take over if the interval excludes a loss of this size.", kind=click.FloatRange(0)
    )
    hidden: float = setting(0.2, "Share of each judging user's items that is held out.")
    rollback: bool = setting(False, "Give the place back to the champion before this one; nothing is measured.")
    seed: int = setting(0, "Seed of what is held out.", kind=SEED)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        if bool(self.ratings) == self.rollback:
            raise ConfigError("Expected either RATINGS with the users who judge, or --rollback.")
        TASKS["ranking"].check(self.metric)


@dataclass(frozen=True)
class Promotion:
    """Who is the champion now, who was, and what was measured (None: there was no champion, or a rollback)."""

    name: str
    champion: str
    before: str | None
    found: Challenge | None
    reason: str


def run(job: PromoteJob) -> Promotion:
    """Move the alias, or raise GateError with the reason."""
    registry = ModelRegistry()
    if job.rollback:
        return roll_back(job.name, registry)
    asking = registry.version(ModelAddress(job.name, CHALLENGER))
    if asking is None:
        raise RegistryError(
            f"Expected a challenger of {job.name} at {registry.uri}, found none: register one with  "
            f"recsys train RATINGS --register {job.name}."
        )
    reigning = registry.version(ModelAddress(job.name, CHAMPION))
    if reigning is None:
        reason = f"Version {asking} of {job.name} is its first champion: there was none to compare it with."
        return crown(job.name, registry, asking, None, None, reason)
    if reigning == asking:
        return Promotion(job.name, asking, asking, None, f"Version {asking} of {job.name} is the champion already.")
    with tempfile.TemporaryDirectory() as folder, activity("downloading both models"):
        models = {
            version: load_model(registry.fetch(ModelAddress(job.name, version), Path(folder) / version), job.device)
            for version in (reigning, asking)
        }
    return judge(job, registry, (reigning, models[reigning]), (asking, models[asking]))


def judge(
    job: PromoteJob, registry: ModelRegistry, reigning: tuple[str, TrainedModel], asking: tuple[str, TrainedModel]
) -> Promotion:
    """Compare two versions on the users of the test bucket, and move the alias or refuse to."""
    (old, champion), (new, challenger) = reigning, asking
    share = common_bucket(job.name, reigning, asking)
    interactions = read_histories(challenger, job.ratings, job.reading)
    _, judges = divide_by_bucket(interactions, share)
    with (
        job.tracking.open().run(f"promote {job.name}", "promote") as tracked,
        activity(f"comparing versions {new} and {old} on {plural(len(judges.users), 'user')}"),
    ):
        log_data(tracked, judges)
        found = challenge(champion, challenger, judges, job.metric, hidden=job.hidden, seed=job.seed)
        is_won, gain = found.is_won(job.min_gain, job.non_inferior), found.difference.gain
        tracked.log_params({"model": job.name, "champion": old, "challenger": new, "rule": rule(job)})
        tracked.use_model(champion.about.get("run_id"))
        tracked.log_metrics({"champion": found.champion.mean})
        tracked.use_model(challenger.about.get("run_id"))
        tracked.log_metrics({"challenger": found.challenger.mean, "gain": gain.mean})
        tracked.log_metrics({"gain_low": gain.low, "gain_high": gain.high})
        measured = (
            f"{job.metric} {decimal(found.challenger.mean)} against {decimal(found.champion.mean)} of version {old}, "
            f"gain {decimal(gain.mean)} [{decimal(gain.low)}, {decimal(gain.high)}] on {gain.n_users:,} users; "
            f"the rule: {rule(job)}."
        )
        tracked.set_tags({"recsys.promoted": str(is_won)})
    if not is_won:
        registry.set_status(job.name, new, "failed", measured)
        reason = f"Version {new} of {job.name} does not take over: {measured}"
        raise GateError(reason, asdict(Promotion(job.name, old, old, found, reason)))
    return crown(job.name, registry, new, old, found, f"Version {new} of {job.name} takes over: {measured}")


def common_bucket(name: str, *versions: tuple[str, TrainedModel]) -> float:
    """The share of users that both were kept from."""
    shares = {}
    for version, trained in versions:
        share = trained.about.get("split", {}).get("test_bucket")
        if not isinstance(share, float) or not 0 < share < 0.5:
            raise UnsupportedError(
                f"Version {version} of {name} may have been trained on any user, so no user can judge it: train with "
                "test_bucket."
            )
        shares[version] = share
    return min(shares.values())  # a smaller bucket is part of a larger one


def crown(
    name: str, registry: ModelRegistry, version: str, before: str | None, found: Challenge | None, reason: str
) -> Promotion:
    """Move the alias, and say why."""
    registry.set_status(name, version, "passed", reason)
    registry.move_champion(name, version)
    return Promotion(name, version, before, found, reason)


def roll_back(name: str, registry: ModelRegistry) -> Promotion:
    """Make the previous champion the champion again."""
    before = registry.version(ModelAddress(name, PREVIOUS))
    now = registry.version(ModelAddress(name, CHAMPION))
    if before is None:
        raise RegistryError(f"Expected a champion of {name} before the present one, found none.")
    registry.move_champion(name, before)
    registry.remove_alias(name, PREVIOUS)
    return Promotion(name, before, now, None, f"Version {before} of {name} is the champion again, instead of {now}.")


def rule(job: PromoteJob) -> str:
    """The rule in words."""
    if job.non_inferior is not None:
        return f"the 95 % interval of the gain lies above -{job.non_inferior:g}"
    return f"a mean gain of at least {job.min_gain:g}, with a 95 % interval above 0"


@click.command("promote")
@click.argument("name")
@click.argument("ratings", type=LocationType(), nargs=-1)
@options_from(PromoteJob)
def command(job: PromoteJob) -> None:
    """Make the challenger of the registered model NAME its champion, if users in RATINGS show that it is better."""
    try:
        promotion = run(job)
    except GateError as error:
        if as_json():
            print_json(error.facts)
        raise
    if as_json():
        print_json(asdict(promotion))
        return
    say(wrapped(promotion.reason))
