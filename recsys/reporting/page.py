"""Templates of HTML pages that open offline: every text in them is escaped, control characters are made visible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys.reporting.texts import figure, rounded, signed
from recsys.system.packages import missing_package
from recsys.system.text import plural, printable


def template(name: str) -> Any:
    """Load a Jinja2 template of `recsys/reporting/templates`.

    Parameters
    ----------
    name : str
        Such as report.html.

    Returns
    -------
    jinja2.Template
        It escapes every text that is not `trusted`. A name that it does not get is an error.

    Raises
    ------
    MissingPackageError
        If Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise missing_package("jinja2", "report") from error
    environment = Environment(
        loader=PackageLoader("recsys.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {
        "figure": figure,
        "rounded": rounded,
        "signed": signed,
        "plural": plural,
        "count": lambda number: f"{number:,}",
        "name": lambda key: key.replace("_", " "),
        "nowrap": lambda text: text.replace(" %", "\u00a0%"),
    }
    return environment.get_template(name)


def trusted(parts: Mapping[str, str]) -> dict[str, str]:
    """Mark SVG or JSON as not to be escaped: made here, with the texts in it escaped already."""
    from markupsafe import Markup

    return {name: Markup(part) for name, part in parts.items()}
