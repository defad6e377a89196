"""Plain, standard English: words and names that must not come back in what a person reads."""

import re

import pytest
from paths import ROOT

PLACES = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "docs/*.py", "notebooks/*.ipynb"),
    *("recsys/**/*.py", "recsys/**/*.html", "pipelines/**/*.py", "benchmarks/**/*.py", "benchmarks/**/*.md"),
)
FILES = sorted({file for place in PLACES for file in ROOT.glob(place) if "site" not in file.parts})

# British spellings beside torch's and scikit-learn's.
BRITISH = (
    r"\w*(?:optimis(?:e|ing|ation)|factoris|neighbour|normalis|regularis|behaviour|favour|colour|catalogue|"
    r"initialis)\w*"
)
# Sentences of version 0.1 that had to be read twice, and words it used for plainer ones.
UNCLEAR = (
    r"\b(?:whoever|nobody|those of then|laid into|mend it|what it took|the floor|whole road|cannot flatter|"
    r"takes? new people|stopped: by you|so many epochs|for everybody else to|a prior that remembers|flatters|"
    r"answered by the question|who has taken|in slow motion|goes out of it)\b"
)
# Names of version 0.1 whose meaning had to be looked up.
NAMES = (
    r"\b(?:class|def) (?:Place|StoreFolder|Standing|Optimiser|TrainedOnCells|CellInput|Members|Together|SharedSteps|"
    r"main_says|copy_main|add_up|cast_to|averaging|pace|_lift)\b"
)


@pytest.mark.parametrize("words", [BRITISH, UNCLEAR], ids=["British spelling", "unclear words"])
def test_these_words_do_not_come_back(words):
    assert found(words, FILES, re.IGNORECASE) == []


def test_these_names_do_not_come_back():
    assert found(NAMES, [file for file in FILES if file.suffix == ".py"], 0) == []


# What 0.1 wrote and is still read, or names another project gave.
ALLOWED = {"recsys/artifacts.py": "neighbours"}


def found(words, files, flags):
    """`file:line: words` of every place that has them."""
    return [
        f"{file.relative_to(ROOT)}:{number}: {match.group()}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for match in re.finditer(words, line, flags)
        if ALLOWED.get(file.relative_to(ROOT).as_posix()) != match.group()
    ]


def test_the_readme_has_at_most_180_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def test_the_newest_part_of_the_changelog_is_in_plain_english():
    newest = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    assert not re.search(f"{BRITISH}|{UNCLEAR}", newest, re.IGNORECASE)


def test_pages_name_no_folder_of_one_machine():
    pages = [file for file in FILES if file.suffix in {".md", ".ipynb"}]
    assert found(r"(?<![\w.$}~])/(?:work|root|home|Users)/", pages, 0) == []
