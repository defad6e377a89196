"""The page of a service: choose titles, see the list change. Plain HTML that asks this service and no other host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recsys.serving.lists import ListMaker

PAGE = Path(__file__).with_name("page.html")
SHOWN = 12  # items of a search, and of a list
# Nothing from anywhere else, not even by a title that tries.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'self'"
)


class Catalog:
    """The items of a model as the page looks for them: by title or id, the popular ones first.

    Parameters
    ----------
    lists : ListMaker
    """

    def __init__(self, lists: ListMaker):
        self._lists = lists
        self._by_popularity = np.argsort(-lists.trained.item_counts, kind="stable")
        entries = [lists.named(int(at)) for at in self._by_popularity]
        self._texts = [f"{entry.get('title', '')}\n{entry['item_id']}".casefold() for entry in entries]

    def search(self, text: str, n: int = SHOWN) -> list[dict[str, Any]]:
        """Find items.

        Parameters
        ----------
        text : str
            Words that all occur in the title or the id, in any case; titles that begin with the text come first.
        n : int
            How many, at most.

        Returns
        -------
        list of dict
            item_id, and title where one is known.
        """
        wanted = text.casefold().strip()
        words = wanted.split()
        places = [at for at, own in enumerate(self._texts) if all(word in own for word in words)] if words else []
        places.sort(key=lambda at: not self._texts[at].startswith(wanted))
        return [self._lists.named(int(self._by_popularity[at])) for at in places[:n]]

    def popular(self, n: int = SHOWN) -> list[dict[str, Any]]:
        """Return the items of most training users."""
        return [self._lists.named(int(at)) for at in self._by_popularity[:n]]
