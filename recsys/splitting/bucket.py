"""The test bucket: users whom no model is trained on, so that models of different days can be judged by the same users.

Whether a user is in the bucket depends on the user's id alone: not on the other users, the order of the rows, a seed or
the day. A larger bucket holds all users of a smaller one.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.reading.selection import join_seen, take_rows, without_unused_ids
from recsys.errors import DataError
from recsys.splitting._building import check_share

_SALT = "recsys test bucket"  # another one would move every user


def in_bucket(users: Vocabulary, share: float) -> NDArray[np.bool_]:
    """Say which users are in the test bucket.

    Parameters
    ----------
    users : Vocabulary
        Ids; integers count as their spelling, 7 as "7".
    share : float
        Expected share of the users in the bucket, from 0 to 1.

    Returns
    -------
    ndarray of bool, shape (users,)
        True where SHA-256 of the id, as a number in [0, 1), is below `share`.
    """
    texts = (f"{_SALT}:{user}".encode() for user in users.to_list())
    heads = b"".join(hashlib.sha256(text).digest()[:8] for text in texts)
    return np.asarray(np.frombuffer(heads, dtype=">u8") / 2.0**64 < share)


def divide_by_bucket(interactions: Interactions, share: float) -> tuple[Interactions, Interactions]:
    """Divide the users into those to train on and those of the test bucket.

    Parameters
    ----------
    interactions : Interactions
    share : float
        Expected share of the users in the bucket, above 0 and below 0.5.

    Returns
    -------
    training, bucket : Interactions
        Each with its own users and the items that they have.

    Raises
    ------
    ConfigError
        If `share` is out of range.
    DataError
        If no user is on one of the sides.
    """
    check_share("share", share, 0.5)
    inside = in_bucket(interactions.users, share)
    for side, users in ((inside, "in the bucket"), (~inside, "to train on")):
        if not side.any():
            total = len(interactions.users)
            raise DataError(f"Expected users {users}, found none of {total} at a share of {share:g}: change the share.")
    others = interactions.seen_only
    seen_inside = None if others is None else in_bucket(others.users, share)
    return (
        _of_users(interactions, ~inside, None if seen_inside is None else ~seen_inside),
        _of_users(interactions, inside, seen_inside),
    )


def _of_users(
    interactions: Interactions, wanted: NDArray[np.bool_], wanted_seen: NDArray[np.bool_] | None
) -> Interactions:
    """The rows of some users, and what else they have seen."""
    kept = without_unused_ids(take_rows(replace(interactions, seen_only=None), wanted[interactions.user]))
    others = interactions.seen_only
    if others is None or wanted_seen is None:
        return kept
    if others.row is None:
        others = replace(others, row=np.arange(len(others), dtype=np.int32))
    return replace(kept, seen_only=join_seen([take_rows(others, wanted_seen[others.user])], kept.users))
