"""The plan of a batch output: everything that decides its bytes, and how the users are cut into shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from recsys.errors import ConfigError

FOLDERS = ("recommendations", "short_lists")  # of lists: themselves, and who got a short one
ENCODING_FOLDERS = ("embeddings", "left_out")  # of embeddings: themselves, and who has none

MOST_REASONS = 100  # of a listed item: each makes two columns

TILE, GPU_TILE = 256, 4096  # users scored in one product: a GPU wants more of them at once than a core


@dataclass(frozen=True)
class Shard:
    """A slice of the users, from `start` to before `stop`, and the name of its files without their suffix."""

    name: str
    start: int
    stop: int


class BatchPlan:
    """What the machinery of shards, resuming and manifests needs of a plan: a dataclass that names its files.

    Attributes
    ----------
    folders : tuple of str
        Folders of the output, one for each file of a shard.
    counts : tuple of str
        The counts in the summary of a shard, which the manifest adds up; "users" is always one.
    users, shard_users, tile : int
        Rows in all, in a file, and in one product.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    folders: ClassVar[tuple[str, ...]]
    counts: ClassVar[tuple[str, ...]]
    users: int
    shard_users: int
    tile: int

    @property
    def hash(self) -> str:
        """sha256 of the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> list[Shard]:
        """The users cut into consecutive shards."""
        starts = range(0, self.users, self.shard_users)
        ends = [min(start + self.shard_users, self.users) for start in starts]
        return [Shard(f"part-{i:05d}", *bounds) for i, bounds in enumerate(zip(starts, ends, strict=True))]

    def is_summary(self, summary: Mapping[str, Any]) -> bool:
        """Whether the summary of a shard holds whole numbers where the plan has counts."""
        return all(type(summary.get(count)) is int for count in self.counts)

    def files(self, shard: Shard) -> list[str]:
        """Names of the files of a shard, in the order of the folders."""
        return [f"{folder}/{shard.name}.parquet" for folder in self.folders]


@dataclass(frozen=True)
class ScoringPlan(BatchPlan):
    """Everything that decides the bytes of a batch output.

    Parameters
    ----------
    model : str
        Digest of the model directory.
    inputs : str
        Fingerprint of the users, their histories and the rules of the lists.
    users : int
        Number of lists asked for: users, or items where `lists_for` is "items".
    n : int
        Length of a list, at least 1; lists are never longer than the catalog.
    lists_for : {"users", "items"}
        Lists of items for users, or of similar items for items.
    filter_seen : bool
        Leave out the items a user has already had.
    cold : {"popularity", "skip"}
        What a user gets who cannot be scored: popular items (and the column `source` says so), or no list.
    shard_users : int
        Users in one file.
    format : {"parquet", "csv"}
        Format of the lists.
    csv_safe : bool
        Mark texts that a spreadsheet would run as formulas.
    device : str
        Kind of device, "cpu" or "cuda": they round differently.
    precision : {"fp32", "bf16"}
        Type of the scores.
    tile : int
        Users scored in one product, whose last bits depend on its shape.
    reasons : int
        Reasons given for each item of a list: items of the history and their shares; 0 for none.
    rules : tuple of str
        Names of the rules that the lists keep.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    folders = FOLDERS
    counts = ("users", "rows", "short_lists")

    model: str
    inputs: str
    users: int
    n: int = 10
    lists_for: Literal["users", "items"] = "users"
    filter_seen: bool = True
    cold: Literal["popularity", "skip"] = "skip"
    shard_users: int = 65_536
    format: Literal["parquet", "csv"] = "parquet"
    csv_safe: bool = False
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    tile: int = TILE
    reasons: int = 0
    rules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f"Expected precision fp32 or bf16, found {self.precision!r}.")
        for name in ("n", "shard_users", "tile"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} of at least 1, found {getattr(self, name)}.")
        if self.csv_safe and self.format != "csv":
            raise ConfigError("Expected csv_safe only for the format csv, found parquet: only spreadsheets need it.")
        if not 0 <= self.reasons <= MOST_REASONS:
            raise ConfigError(f"Expected reasons from 0 to {MOST_REASONS}, found {self.reasons}.")
        if self.reasons and self.lists_for == "items":
            raise ConfigError(
                "Expected reasons for lists of users, found lists of similar items: they have no history."
            )
        if self.reasons and self.precision == "bf16":
            raise ConfigError("Expected precision fp32 with reasons, found bf16: contributions are small differences.")

    @property
    def target_column(self) -> str:
        """Name of the column that says whose list it is."""
        return "user_id" if self.lists_for == "users" else "target_item_id"

    @property
    def hash(self) -> str:
        """sha256 of the plan."""
        content = asdict(self)
        content["audience"] = content.pop("inputs")  # its name in 0.1, whose outputs can be resumed
        if not self.reasons:  # 0.1 had none
            del content["reasons"]
        if not self.rules:
            del content["rules"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def is_summary(self, summary: Mapping[str, Any]) -> bool:
        """Whether the summary of a shard holds whole numbers where the plan has counts, also those of the rules."""
        effects = summary.get("effects", []) if self.rules else []
        return (
            super().is_summary(summary)
            and (not self.rules or type(summary.get("emptied")) is int)
            and isinstance(effects, list)
            and len(effects) == 2 * len(self.rules)
            and all(type(count) is int for count in effects)
        )

    def files(self, shard: Shard) -> list[str]:
        """Names of the shard's two files: its lists, and its short lists (always Parquet)."""
        return [f"{FOLDERS[0]}/{shard.name}.{self.format}", f"{FOLDERS[1]}/{shard.name}.parquet"]
