"""The report beside generated users, as one HTML file that opens offline, and its findings in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys.evaluation.generated import Likeness, Membership, Usefulness
from recsys.evaluation.metrics import lower_is_better
from recsys.reporting import svg
from recsys.reporting.page import template, trusted
from recsys.reporting.svg import Series
from recsys.system.text import plural

_ENOUGH = 1_000  # users, for a membership check that finds two copies in a hundred


@dataclass(frozen=True)
class GeneratedFacts:
    """What is known of generated users.

    Attributes
    ----------
    users : int
        How many were generated.
    compared : int
        How many of them, the first ones, were compared with real users.
    real : int
        Real users they are compared with.
    likeness : Likeness
    membership : Membership
    usefulness : Usefulness, optional
    about : mapping
        Model, seed and whatever else makes them again.
    note : str
        What must be known of the held-out users.
    """

    users: int
    compared: int
    real: int
    likeness: Likeness
    membership: Membership
    usefulness: Usefulness | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def findings(facts: GeneratedFacts) -> list[str]:
    """Say what was found, in a sentence each."""
    likeness, useful = facts.likeness, facts.usefulness
    sentences = []
    if useful is not None:
        reaches = "has" if lower_is_better(useful.metric) else "reaches"
        better = ", lower is better" if lower_is_better(useful.metric) else ""
        sentences.append(
            f"{useful.model} trained on generated users {reaches} {useful.ratio:.1%} of the {useful.metric} that real "
            f"ones give ({useful.low:.1%} to {useful.high:.1%}{better})."
        )
    sentences.append(
        f"Correlation with the original: {likeness.popularity:.3f} over the popularity of items, "
        f"{likeness.together:.3f} over pairs of popular items. Mean number of items: {likeness.mean_items[1]:.1f}, "
        f"real {likeness.mean_items[0]:.1f}; of the catalog: {likeness.catalog[1]:.1%}, real {likeness.catalog[0]:.1%}."
    )
    if likeness.mean_values != (1, 1):
        sentences[-1] += f" Mean rating: {likeness.mean_values[1]:.2f}, real {likeness.mean_values[0]:.2f}."
    verdict = "Membership check passed" if facts.membership.passed else "Membership check FAILED"
    return [*sentences, f"{verdict}: {copying(facts.membership)}"]


def copying(membership: Membership) -> str:
    """Say what the membership check found."""
    copies = plural(membership.copies, "user")
    have = "has" if membership.copies == 1 else "have"
    few = (
        f" So few users cannot show that there are no copies: generate {_ENOUGH:,}."
        if membership.users < _ENOUGH
        else ""
    )
    return (
        f"{membership.generated:.2%} of generated users ({membership.low:.2%} to {membership.high:.2%}) are as near to "
        f"a real user as the nearest {membership.real:.2%} of real users are to another one (Jaccard distance up to "
        f"{membership.threshold:.2f}); {copies} of {membership.users:,} {have} exactly the items of a real one.{few}"
    )


def render_generated(facts: GeneratedFacts, version: str = "") -> str:
    """Make the page.

    Parameters
    ----------
    facts : GeneratedFacts
    version : str
        Of recsys, for the last line.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    MissingPackageError
        If Jinja2 is not installed.
    """
    first = f"the first {facts.compared:,}" if facts.compared < facts.users else "all of them"
    page: str = template("generated.html").render(
        heading=f"{plural(facts.users, 'generated user')}",
        subtitle=f"{first} beside {plural(facts.real, 'real user')}",
        summary=findings(facts)[:-1],
        copying=copying(facts.membership),
        membership=facts.membership,
        likeness=facts.likeness,
        usefulness=facts.usefulness,
        note=facts.note,
        about=facts.about,
        version=version,
        charts=trusted(_charts(facts)),
    )
    return page


def _charts(facts: GeneratedFacts) -> dict[str, str]:
    """The charts by name."""
    likeness = facts.likeness
    tail = [(rank, 100 * real, 100 * generated) for rank, real, generated in likeness.tail]
    activity = [(100 * share, real, generated) for share, real, generated in likeness.activity]
    distance = [(real, generated, 100 * share) for share, real, generated in facts.membership.quantiles]
    pairs = [Series("pairs", 1, [(100 * real, 100 * generated) for real, generated in likeness.pairs or [(0, 0)]])]
    near = [
        Series("real", 0, [(real, share) for real, _, share in distance]),
        Series("generated", 1, [(generated, share) for _, generated, share in distance]),
    ]
    return {
        "tail": svg.line_chart(_two(tail), "item by popularity (log scale)", log=True, title="share of users by item"),
        "activity": svg.line_chart(_two(activity), "percent of users", title="items of a user by share of users"),
        "pairs": svg.line_chart(pairs, "percent of real users", diagonal=True, title="generated against real pairs"),
        "distance": svg.line_chart(near, "distance", title="percent of users below each distance"),
    }


def _two(rows: Sequence[tuple[float, float, float]]) -> list[Series]:
    """Real and generated values over x."""
    return [
        Series("real", 0, [(x, real) for x, real, _ in rows]),
        Series("generated", 1, [(x, generated) for x, _, generated in rows]),
    ]
