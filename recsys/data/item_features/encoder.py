"""From a table of items to a sparse matrix of features, the same for the items of today and those of tomorrow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix, hstack

from recsys.data.item_features.columns import Encoding, encode_column, fit_column
from recsys.data.item_features.options import FeatureOptions
from recsys.data.item_features.table import ItemTable
from recsys.errors import DataError

NAMES, NUMBERS = "features.json", "features.safetensors"  # in a model directory
FORMAT = 1


@dataclass(frozen=True)
class FeatureEncoder:
    """The features of items: what each column of a table becomes.

    Attributes
    ----------
    encodings : tuple of Encoding
        One for each column, in their order; the features of a column stand together.
    """

    encodings: tuple[Encoding, ...]

    @classmethod
    def fit(cls, table: ItemTable, options: FeatureOptions | None = None) -> FeatureEncoder:
        """Find the features of a table.

        Parameters
        ----------
        table : ItemTable
        options : FeatureOptions, optional
            Least number of items of a value, most terms of a text.

        Returns
        -------
        FeatureEncoder

        Raises
        ------
        DataError
            If no column tells items apart.
        MissingPackageError
            If there is text and scikit-learn is not installed.
        """
        options = options or FeatureOptions()
        encoder = cls(tuple(fit_column(name, column, options) for name, column in table.columns.items()))
        if not len(encoder):
            raise DataError(
                f"Expected a column that tells items apart, found none in {', '.join(table.columns)}: no category or "
                f"term is that of {options.min_items} items, and no number differs."
            )
        return encoder

    def __len__(self) -> int:
        return sum(encoding.width for encoding in self.encodings)

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return [name for encoding in self.encodings for name in encoding.names]

    @property
    def options(self) -> FeatureOptions:
        """How to read a table for it: the same columns, as what they were."""
        return FeatureOptions(tuple(f"{encoding.name}:{encoding.kind}" for encoding in self.encodings))

    def transform(self, table: ItemTable) -> csr_matrix:
        """Return the features of the items of a table.

        Parameters
        ----------
        table : ItemTable
            With the same columns, and perhaps others.

        Returns
        -------
        csr_matrix of float32, shape (items, features)
            Values and terms that are no features are left out.

        Raises
        ------
        DataError
            If a column is missing or holds something else.
        """
        parts = [encode_column(encoding, table.column(encoding.name)) for encoding in self.encodings]
        found = csr_matrix(hstack(parts, format="csr"), dtype=np.float32)
        found.sort_indices()
        return found

    def save(self, folder: Path) -> None:
        """Write it to a folder: names as JSON, numbers as safetensors."""
        columns = [
            {"name": each.name, "kind": each.kind, "values": list(each.values), "width": each.width}
            for each in self.encodings
        ]
        text = json.dumps({"format": FORMAT, "columns": columns}, ensure_ascii=False)
        (folder / NAMES).write_text(text, encoding="utf-8")
        save_file({str(place): each.numbers for place, each in enumerate(self.encodings)}, folder / NUMBERS)

    @classmethod
    def load(cls, folder: Path) -> FeatureEncoder:
        """Read what `save` wrote.

        Parameters
        ----------
        folder : Path

        Returns
        -------
        FeatureEncoder

        Raises
        ------
        DataError
            If the files hold anything else.
        """
        try:
            content = json.loads((folder / NAMES).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise DataError(f"Expected features of format {FORMAT}, found {content['format']!r:.20}.")
            numbers = load_file(folder / NUMBERS)
            if sorted(numbers) != sorted(str(place) for place in range(len(content["columns"]))):
                raise DataError(f"Expected numbers of {len(content['columns'])} columns, found {len(numbers)}.")
            encodings = [_encoding(each, numbers[str(at)]) for at, each in enumerate(content["columns"])]
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DataError(f"Expected {NAMES} and {NUMBERS} as recsys writes them, found: {error}.") from error
        return cls(tuple(encodings))


def _encoding(column: Mapping[str, Any], numbers: Any) -> Encoding:
    """One column of features.json, whose values may be anything."""
    name, values, width = column["name"], column["values"], column["width"]
    texts = isinstance(name, str) and isinstance(values, list) and all(isinstance(value, str) for value in values)
    if not texts or not isinstance(width, int) or isinstance(width, bool) or numbers.dtype != np.float64:
        raise DataError("Expected a column with a name, values, a width and numbers.")
    return Encoding(name, column["kind"], tuple(values), numbers, width)
