"""Texts that leave the process: no secret in them, and nothing that a terminal would obey."""

import pytest

from recsys.errors import ConfigError
from recsys.system.text import mask_address, mask_secrets, printable, seconds_of


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:SECRET@host:5000/x", "http://***@host:5000/x"),
        ("http://me:SEC/RET@host/x", "http://***@host/x"),
        ("http://me:SEC@RET@host/x", "http://***@host/x"),
        ("postgresql+psycopg2://me:SEC/R@ET@host:5432/db", "postgresql+psycopg2://***@host:5432/db"),
        ("redis://:SECRET@host", "redis://***@host"),
        ("https://SECRET@host/repository", "https://***@host/repository"),
        ("https://acc.blob.net/c/x?sv=1&sig=SEC%2FRET&se=2", "https://acc.blob.net/c/x?sv=1&sig=***&se=2"),
        ("https://host/x?token=SECRET", "https://host/x?token=***"),
        ("https://host/x?access_token=SECRET#part", "https://host/x?access_token=***"),
        ("https://host/x?key=SECRET", "https://host/x?key=***"),
        ("s3://b/k?X-Amz-Signature=SECRET&X-Amz-Date=1", "s3://b/k?X-Amz-Signature=***&X-Amz-Date=1"),
        ("s3://b/k?X-Amz-Security-Token=SECRET", "s3://b/k?X-Amz-Security-Token=***"),
        ("AWS_SECRET_ACCESS_KEY=SEC/RET+x python", "AWS_SECRET_ACCESS_KEY=*** python"),
        ("AWS_SECRET=SECRET", "AWS_SECRET=***"),
        ("AccountName=a;AccountKey=SECRET==;EndpointSuffix=s", "AccountName=a;AccountKey=***;EndpointSuffix=s"),
        ("BlobEndpoint=https://a;SharedAccessSignature=SECRET", "BlobEndpoint=https://a;SharedAccessSignature=***"),
        ("Server=s;User=me;Password=SECRET;", "Server=s;User=me;Password=***;"),
        ("recsys score --token SECRET -n 3", "recsys score --token *** -n 3"),
        ('{"user": "me", "password": "SEC RET"}', '{"user": "me", "password": ***}'),
        ("Authorization: Bearer SECRET.x", "Authorization: Bearer ***"),
        ("Authorization: Basic SECRET=", "Authorization: Basic ***"),
        ("two: a://u:SECRET@h and b://v:SECRET@i", "two: a://***@h and b://***@i"),
    ],
)
def test_secrets_of_any_form_are_masked(text, masked):
    assert mask_secrets(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3://bucket/lists/part@2.parquet",
        "abfs://container@account.dfs.core.windows.net/lists",
        "http://localhost:5000/#/experiments",
        "recsys train ratings.csv -m ease --user-column token_id --seed 3 -s l2=500",
        "me@example.org wrote basic recommendations",
        "monkey=3",
    ],
)
def test_what_is_no_secret_stays(text):
    assert mask_secrets(text) == text


def test_a_container_with_a_password_is_masked_all_the_same():
    assert mask_secrets("abfs://me:SECRET@account/x") == "abfs://***@account/x"


def test_control_characters_become_visible():
    assert printable("\x1b[31mred\x1b[0m \x07\x9b1m \x7f") == r"\x1b[31mred\x1b[0m \x07\x9b1m \x7f"
    assert printable("right \u202e to left, \u2028, \ufeff, \ud800") == r"right \u202e to left, \u2028, \ufeff, \ud800"


def test_text_of_any_language_stays_as_it_is():
    assert printable("Amélie 天使 👩‍🚀 – ½") == "Amélie 天使 👩‍🚀 – ½"


def test_lines_and_tabs_stay_unless_one_line_is_wanted():
    assert printable("a\n\tb\r") == "a\n\tb\\r"
    assert printable("a\n\tb", single_line=True) == r"a\n\tb"


def test_an_error_that_quotes_a_part_of_an_address_alone_is_masked():
    text = 'Invalid bucket name "key:word@bucket"'
    assert mask_address(text, "s3://key:word@bucket/x.csv") == 'Invalid bucket name "***@bucket"'
    assert mask_address("no lake@account", "abfs://lake@account/x") == "no lake@account"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("600", 600)])
def test_a_time_in_seconds_minutes_or_hours(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "ten", "0s", "-5m", "infh", "nan", "10d"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match="a time such as 90s"):
        seconds_of(text)
