"""Reading a small text, and what comes of it, in a form that a test can compare."""

from __future__ import annotations

from recsys.data.reading import ReadingOptions, read_interactions


def read(path, text: str | bytes, **options):
    """Interactions of a file with this text; `path`: where to write it, or the folder."""
    path = path / "ratings.csv" if path.is_dir() else path
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_interactions(path, ReadingOptions(**options))


def cells(found) -> dict:
    """{(user id, item id): rating} of interactions."""
    users, items = found.users.take(found.user).to_pylist(), found.items.take(found.item).to_pylist()
    ratings = [None] * len(found) if found.rating is None else found.rating.tolist()
    return dict(zip(zip(users, items, strict=True), ratings, strict=True))
