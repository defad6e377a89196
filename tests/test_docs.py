"""The documentation: its examples run, and the site builds without a warning and needs no network."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from paths import ROOT

from pipelines.cli.main import COMMANDS, main
from recsys.tracking.tracker import NullTracker

DOCS = ROOT / "docs"
PAGES = {file.relative_to(DOCS).as_posix(): file.read_text(encoding="utf-8") for file in sorted(DOCS.rglob("*.md"))}
FENCE = re.compile(r"(<!-- not run -->\s+)?^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples(text):
    """(language, source) of every example of a page that is not marked `<!-- not run -->`."""
    return [(language, source) for mark, language, source in FENCE.findall(text) if not mark]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data" / "sample", tmp_path / "data" / "sample")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.cli.settings.TrackingOptions.open", lambda *_: NullTracker())  # seconds each
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if examples(text)])
def test_the_examples_of_a_page_run_in_their_order(page, folder):
    for language, source in examples(PAGES[page]):
        with contextlib.redirect_stdout(io.StringIO()):
            if language == "python":
                exec(compile(source, page, "exec"), {})
            else:
                for line in source.replace("\\\n", " ").splitlines():
                    run_line(line, folder)


def run_line(line, folder):
    words = shlex.split(line, comments=True)
    if words and words[0] == "recsys":
        main.main(words[1:], standalone_mode=False)
    elif words:
        subprocess.run(["bash", "-ec", line], cwd=folder, check=True)


def test_every_flag_of_an_example_that_is_not_run_exists():
    for page, text in PAGES.items():
        for line in "\n".join(source for _, source in [found[1:] for found in FENCE.findall(text)]).splitlines():
            words = shlex.split(line.replace("\\", " "), comments=True) if line.count("'") % 2 == 0 else []
            if words[:1] == ["recsys"] and words[1] in COMMANDS:
                known = {flag for option in main.get_command(None, words[1]).params for flag in option.opts}
                assert {word for word in words if re.fullmatch(r"--[a-z-]+", word)} <= known, f"{page}: {line}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"])
def test_links_of_pages_outside_the_site_lead_to_files(page):
    targets = re.findall(r"\]\(([^)\s#]+)", (ROOT / page).read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (ROOT / page).parent.joinpath(target).exists()] == []


# The site


class References(HTMLParser):
    """What a page fetches when it is opened."""

    def __init__(self):
        super().__init__()
        self.fetched = []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in {"script", "img", "iframe", "source"}:
            self.fetched.append(values.get("src") or "")
        if tag == "link" and {"stylesheet", "icon", "preload", "preconnect"} & set((values.get("rel") or "").split()):
            self.fetched.append(values.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        references = References()
        references.feed(page.read_text(encoding="utf-8"))
        assert [url for url in references.fetched if url.startswith(("http", "//"))] == [], page
    styles = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "site").rglob("*.css"))
    assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", styles)


def test_pictures_are_small():
    for picture in (DOCS / "images").iterdir():
        assert picture.stat().st_size < 200_000, picture.name
