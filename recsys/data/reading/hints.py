"""Remarks on ratings that are worth reading before a model is trained on them, with figures of these data."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, RatingScale, Vocabulary
from recsys.data.reading.lines import BLANKS
from recsys.data.reading.rows import BELOW_MIN_RATING, UNPARSABLE
from recsys.system.text import plural
from recsys.types import IntArray

# Texts that programs write where a value is missing, in lower case.
MISSING_MARKERS = ("null", "\\n", "nan", "na", "n/a", "<na>", "#n/a", "none", "nil", "undefined", "nat", "-", "?")


def hints(interactions: Interactions) -> list[str]:
    """Find remarks on interactions.

    Parameters
    ----------
    interactions : Interactions

    Returns
    -------
    list of str
        Most useful first; empty where there are none. They name parameters, not flags.
    """
    remarks = [
        _on_lines(interactions),
        _on_missing_markers("user", interactions.users, interactions.user),
        _on_missing_markers("item", interactions.items, interactions.item),
        _on_outliers(interactions),
        _on_ratings(interactions),
        _on_small_users(interactions),
        _on_blanks("user", interactions.users),
        _on_blanks("item", interactions.items),
        None if interactions.timestamp is not None else "There are no times: the protocol temporal is not available.",
    ]
    return [remark for remark in remarks if remark]


def good_rating(scale: RatingScale) -> float:
    """Return the rating three quarters up the scale, on a step of it: 4 of 1 to 5.

    References
    ----------
    Liang et al., Variational Autoencoders for Collaborative Filtering, WWW 2018: MovieLens ratings of 4 or more count.
    """
    step = scale.step or (scale.max - scale.min) / 100
    if not step:
        return scale.max
    good = scale.max - step * math.floor((scale.max - scale.min) / 4 / step + 1e-6)
    return float(f"{good:.7g}")


def _on_lines(interactions: Interactions) -> str | None:
    count = interactions.ledger.rejected.get(UNPARSABLE, 0)
    if not count:
        return None
    return (
        f"{plural(count, 'line does', 'lines do')} not parse. Text over several lines (reviews, for example) is read "
        "as one row only within quotes; elsewhere its pieces may be taken for rows. To see the lines, set `rejects`."
    )


def _on_missing_markers(kind: str, vocabulary: Vocabulary, positions: IntArray) -> str | None:
    """Ids that other programs write for a missing value."""
    ids = vocabulary.ids
    if pa.types.is_integer(ids.type):
        return None
    lower = pc.utf8_lower(pc.utf8_trim(ids, characters=BLANKS))
    found = np.flatnonzero(pc.is_in(lower, value_set=pa.array(MISSING_MARKERS, lower.type)).to_numpy(False))
    if not len(found):
        return None
    rows = int(np.isin(positions, found).sum())
    names = ", ".join(repr(name) for name in vocabulary.take(found[:5]).to_pylist())
    return (
        f"{plural(rows, 'row has', 'rows have')} the {kind} id{'s' if len(found) > 1 else ''} {names}. "
        f"Ids stay as they are: if this marks a missing {kind}, remove the rows from the file."
    )


def _on_ratings(interactions: Interactions) -> str | None:
    scale, ratings = interactions.scale, interactions.rating
    if scale is None or ratings is None:
        return None
    if scale.kind == "constant":
        return f"Every rating is {scale.min:g}: a row says no more than that it exists."
    usual = _usual_ratings(ratings)
    least = float(np.median(ratings)) if scale.kind == "count" else good_rating(RatingScale.of(usual))
    kept = f"min_rating={least:g} keeps {(ratings >= np.float32(least)).mean():.0%} of the rows"
    if scale.kind == "count":
        low, high = math.log1p(scale.min), math.log1p(scale.max)
        return (
            f"These look like counts or hours, not ratings ({scale.min:g} to {scale.max:,.0f}, median {least:g}). For "
            f"ranking each row counts as one preference; {kept}, and a weight of log(1 + count) would be between "
            f"{low:.1f} and {high:.1f}. A model for the rating task would fit mainly the few large ones."
        )
    if BELOW_MIN_RATING in interactions.ledger.rejected:
        return None  # min_rating is in use
    return f"For ranking each row counts as a preference, low ratings too; {kept}."


def _usual_ratings(ratings: NDArray[np.float32]) -> NDArray[np.float32]:
    """The ratings without the rare ones that are far from all others: more than the range of 98 % of them away."""
    low, high = np.quantile(ratings, [0.01, 0.99])
    margin = high - low
    return ratings[(ratings >= low - margin) & (ratings <= high + margin)] if margin else ratings


def _on_outliers(interactions: Interactions) -> str | None:
    """A few ratings out of the scale of all others, such as 99 for "no answer"."""
    scale, ratings = interactions.scale, interactions.rating
    if scale is None or ratings is None or scale.kind != "rating":
        return None
    usual = _usual_ratings(ratings)
    count = len(ratings) - len(usual)
    if not count:
        return None
    outside = np.setdiff1d(ratings, usual)
    shown = ", ".join(f"{value:g}" for value in outside[:5]) + (", ..." if len(outside) > 5 else "")
    return (
        f"{plural(count, 'rating is', 'ratings are')} far outside of {usual.min():g} to {usual.max():g}, where all "
        f"others are: {shown}. They stay as they are: if they mark a missing rating, remove the rows from the file."
    )


def _on_small_users(interactions: Interactions) -> str | None:
    small = int((np.bincount(interactions.user, minlength=len(interactions.users)) < 5).sum())
    if small < max(1, len(interactions.users) // 100):
        return None
    users = plural(len(interactions.users), "user")
    return (
        f"{small:,} of {users} {'has' if small == 1 else 'have'} fewer than 5 items: "
        "little to learn from or to test on. min_user_items=5 leaves them out."
    )


def _on_blanks(kind: str, vocabulary: Vocabulary) -> str | None:
    ids = vocabulary.ids
    if pa.types.is_integer(ids.type):
        return None
    bare = pc.utf8_trim(ids, characters=BLANKS)
    blank = pc.not_equal(ids, bare)
    count = pc.sum(blank).as_py()
    if not count:
        return None
    subject = plural(count, f"{kind} id begins or ends", f"{kind} ids begin or end")
    twins = pc.filter(ids, pc.and_(blank, pc.is_in(bare, value_set=ids)))
    example = f": {twins[0].as_py()!r} is not {twins[0].as_py().strip(BLANKS)!r}" if len(twins) else ""
    return f"{subject} with a blank; ids stay as they are{example}."
