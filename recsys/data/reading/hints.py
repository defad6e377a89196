"""What a person should know about their ratings before training on them, in sentences with their own numbers."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.interactions import Interactions, RatingScale, Vocabulary
from recsys.data.reading.rows import BELOW_MIN_RATING, UNPARSABLE


def hints(interactions: Interactions) -> list[str]:
    """Remarks on these data, most useful first; none where there is nothing to say."""
    said = [
        _on_lines(interactions),
        _on_ratings(interactions),
        _on_small_users(interactions),
        _on_blanks("user", interactions.users),
        _on_blanks("item", interactions.items),
        None if interactions.timestamp is not None else "No times: the protocol temporal will not do.",
    ]
    return [hint for hint in said if hint]


def good_rating(scale: RatingScale) -> float:
    """Three quarters up the scale, on a step of it: 4 of 1 to 5, as Liang et al. 2018 binarize MovieLens."""
    step = scale.step or (scale.max - scale.min) / 100
    return round(scale.max - step * math.floor((scale.max - scale.min) / 4 / step + 1e-6), 6)


def _on_lines(interactions: Interactions) -> str | None:
    count = interactions.ledger.rejected.get(UNPARSABLE, 0)
    if not count:
        return None
    return (
        f"{count:,} lines do not parse. Text over several lines (reviews, say) is read as such only within quotes: "
        "elsewhere pieces of it may pass for rows. See them with --rejects FILE."
    )


def _on_ratings(interactions: Interactions) -> str | None:
    scale, ratings = interactions.scale, interactions.rating
    if scale is None or ratings is None:
        return None
    if scale.kind == "constant":
        return f"Every rating is {scale.min:g}: a row says no more than that it exists."
    least = float(np.median(ratings)) if scale.kind == "count" else good_rating(scale)
    kept = f"--min-rating {least:g} keeps {(ratings >= np.float32(least)).mean():.0%} of the rows"
    if scale.kind == "count":
        low, high = math.log1p(scale.min), math.log1p(scale.max)
        return (
            f"These look like counts or hours, not ratings ({scale.min:g} to {scale.max:,.0f}, median {least:g}). For "
            f"ranking each row counts as one preference; {kept}, and a weight of log(1 + count) would run from "
            f"{low:.1f} to {high:.1f}. A model for the rating task would chase the few large ones."
        )
    if BELOW_MIN_RATING in interactions.ledger.rejected:
        return None  # they know
    return f"For ranking each row counts as a preference, low ratings too; {kept}."


def _on_small_users(interactions: Interactions) -> str | None:
    small = int((np.bincount(interactions.user, minlength=len(interactions.users)) < 5).sum())
    if small < max(1, len(interactions.users) // 100):
        return None
    return (
        f"{small:,} of {len(interactions.users):,} users have fewer than 5 items: little to learn from or to test on. "
        "--min-user-items 5 leaves them out."
    )


def _on_blanks(kind: str, vocabulary: Vocabulary) -> str | None:
    ids = vocabulary.ids
    if pa.types.is_integer(ids.type):
        return None
    count = pc.sum(pc.not_equal(ids, pc.utf8_trim_whitespace(ids))).as_py()
    return f"{count:,} {kind} ids begin or end with a blank; ids are kept as they stand." if count else None
