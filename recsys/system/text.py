"""Texts that leave the process: secrets masked for logs and tags, control characters made visible for terminals."""

from __future__ import annotations

import re

from recsys.errors import ConfigError

# abfs://container@account: what stands before the @ of these schemes is no secret.
_CONTAINER_SCHEMES = ("abfs", "abfss", "wasb", "wasbs")

_SECRET = (
    r"[\w.\-]*(?:sig|signature|token|secret|passw(?:or)?d|pwd|passphrase|credentials?|apikey|api[_\-]key|access[_\-]?key|"
    r"account[_\-]?key|private[_\-]?key|shared[_\-]?access\w*|auth|authorization)(?:[_\-](?:id|key))?"
)
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s&;,"'}\])]+)"""
_USER_INFO = re.compile(r"(?P<scheme>[\w+.\-]*)://(?:[^\s/:@]*:\S*|[^\s/@]+)@")
_PAIRS = (
    re.compile(rf"(?i)(?<![\w.\-])(?P<name>(?:{_SECRET}|key)=)(?P<value>{_VALUE})"),  # ?sig=..., AccountKey=...;
    re.compile(rf"""(?i)(?P<name>(["']){_SECRET}\2\s*[:=]\s*)(?P<value>{_VALUE})"""),  # {"token": "..."}
    re.compile(rf"(?i)(?P<name>--{_SECRET}[= ]\s*)(?P<value>{_VALUE})"),  # --token ...
    re.compile(r"(?i)(?P<name>(?:\bbearer|authorization\W{1,4}basic)\s+)(?P<value>[\w+/=.~\-]+)"),
)

# What a terminal obeys or a reader cannot see: C0, DEL and C1 controls, marks that turn the direction of writing,
# line and paragraph separators, zero-width characters, halves of surrogate pairs.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def mask_address(text: str, address: str) -> str:
    """Mask secrets, also what stands before the @ of `address` where a text, such as an error, quotes that alone."""
    is_container = address.partition("://")[0].lower() in _CONTAINER_SCHEMES
    for found in () if is_container else _USER_INFO.finditer(address):
        user_info = found[0].partition("://")[2].removesuffix("@")
        text = text.replace(user_info, "***")
    return mask_secrets(text)


def mask_secrets(text: str) -> str:
    """Replace passwords, tokens, signatures and keys in a text by `***`.

    Use it for every address and command line that is logged, tagged or printed. It masks the part before the @ of an
    address (`http://user:pass@host`, a slash or an @ in the password included), values of query parameters,
    environment variables and connection strings whose name says that they are secret (`?sig=`, `&X-Amz-Signature=`,
    `AWS_SECRET_ACCESS_KEY=`, `AccountKey=`), and `Bearer` headers. In doubt it masks.

    Parameters
    ----------
    text : str
        An address, a command line, or a message that may quote one.

    Returns
    -------
    str
        The same text without the secrets; equal to `text` where there are none.
    """
    text = _USER_INFO.sub(_mask_user_info, text)
    for pattern in _PAIRS:
        text = pattern.sub(r"\g<name>***", text)
    return text


def _mask_user_info(found: re.Match[str]) -> str:
    """The scheme and `***@`, or the match as it is where it is a container's name."""
    scheme = found["scheme"]
    is_container = scheme.lower() in _CONTAINER_SCHEMES and ":" not in found[0].partition("://")[2]
    return found[0] if is_container else f"{scheme}://***@"


def printable(text: str, single_line: bool = False) -> str:
    r"""Make control characters of a text visible, so that a terminal does not obey them.

    Parameters
    ----------
    text : str
        For example a title or an id from a file that somebody else wrote.
    single_line : bool
        Whether line breaks and tabs become visible too, as a cell of a table needs; they stay otherwise.

    Returns
    -------
    str
        Every control character replaced by its escape: the start of an escape sequence becomes `\x1b`.
    """

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        return character if character in "\n\t" and not single_line else repr(character)[1:-1]

    return _CONTROLS.sub(escape, text)


def plural(count: int, singular: str, several: str | None = None) -> str:
    """Return a number and its noun: `1 row`, `2,000 rows`; `several` is the plural where it is not `singular` + s."""
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"


def seconds_of(text: str) -> float:
    """Return the seconds that a text such as 90s, 10m, 1.5h or 600 says.

    Raises
    ------
    ConfigError
        If it is none of these, or not above 0.
    """
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"Expected a time such as 90s, 10m or 2h, found {text!r}.")
    return seconds


_UNITS = {"s": 1, "m": 60, "h": 3600}
