"""An extension of the API reference: the default of a setting is shown without the function that wraps it."""

from __future__ import annotations

from typing import Any

import griffe

WRAPPERS = {"_option", "tunable"}  # default first, then help text or search space


class PlainDefaults(griffe.Extension):
    """`_option(None, "help")` and `tunable(0.5, Range(0.1, 0.8))` are shown as `None` and `0.5`."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Replace the value of a wrapped default."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) in WRAPPERS and value.arguments:
            attr.value = value.arguments[0]
