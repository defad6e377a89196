"""What reaches the terminal: printable text within 80 columns, plain numbers and plurals, JSON with all notes."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.cli.output import decimal, listed, note, print_json, say, table
from recsys.system.text import plural

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202ered"  # sets the window's title, clears the screen, turns the text


def printed(function, *words):
    """What a function prints when a command calls it, on standard output and error."""

    @click.group()
    @click.option("--json", "as_json", is_flag=True)
    def root(as_json):
        pass

    @root.command("go")
    def go():
        function()

    result = CliRunner().invoke(root, [*words, "go"])
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def is_harmless(text):
    return all(character in "\n\t" or character.isprintable() for character in text)


def test_nothing_that_steers_a_terminal_is_printed():
    out, err = printed(lambda: (say(HOSTILE), note(HOSTILE), say(table([[HOSTILE, "a\nb"]], ("one", "two")))))
    assert is_harmless(out) and is_harmless(err)
    assert r"\x1b]0;owned\x07" in out
    assert len(out.splitlines()) == 4  # the text, and a table of a header, a line and one row


def test_json_holds_the_text_and_prints_no_control_character():
    out, _ = printed(lambda: print_json({"title": HOSTILE}), "--json")
    assert is_harmless(out)
    assert json.loads(out) == {"title": HOSTILE}


def test_notes_are_lines_on_standard_error_or_a_list_in_the_json():
    def work():
        note("nothing special", "file.csv")
        if click.get_current_context().find_root().params["as_json"]:
            print_json({"rows": 1})

    assert printed(work) == ("", "file.csv: nothing special\n")
    out, err = printed(work, "--json")
    assert (json.loads(out), err) == ({"rows": 1, "notes": ["file.csv: nothing special"]}, "")


@pytest.mark.parametrize("text", ["caf\ud800", "\udcff"])
def test_half_a_character_is_no_error(text):
    assert is_harmless(printed(lambda: say(text))[0])


def test_numbers_and_plurals():
    assert (plural(0, "user"), plural(1, "user"), plural(2000, "user")) == ("0 users", "1 user", "2,000 users")
    assert plural(1, "list is", "lists are") == "1 list is"
    assert plural(2, "list is", "lists are") == "2 lists are"
    assert (decimal(-0.00001), decimal(-0.00005), decimal(1 / 3, 2)) == ("0.0000", "-0.0001", "0.33")
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdef")) == "a, b, c, ..."


@pytest.fixture
def hostile_ratings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"u{user},i{item}\x1b[31m{item}" for user in range(12) for item in range(6) if (user + item) % 3]
    Path("ratings.csv").write_text("\n".join(["user_id,item_id", *rows]) + "\n", encoding="utf-8")
    titles = [f"i{item}\x1b[31m{item},Title {item} \x1b]0;owned\x07" for item in range(6)]
    Path("titles.csv").write_text("\n".join(["item_id,title", *titles]) + "\n", encoding="utf-8")


def test_ids_and_titles_of_a_file_never_reach_the_terminal_raw(hostile_ratings):
    commands = [
        "check ratings.csv",
        "train ratings.csv -m ease --held-out 0 -o model --no-track",
        "recommend model --user u1 --ratings ratings.csv --titles titles.csv",
        "recommend model --user \x1b[31m --ratings ratings.csv",
        "score model ratings.csv -o lists --exclude-items titles.csv --users titles.csv --no-track",
    ]
    for command in commands:
        for flags in ([], ["--json"]):
            again = ["--overwrite"] if command.startswith(("train", "score")) else []
            result = CliRunner().invoke(main, [*flags, *command.split(" "), *again])
            assert is_harmless(result.output), command
            assert "Traceback" not in result.output
