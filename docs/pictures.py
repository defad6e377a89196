"""Make the pictures of the documentation from real output: `python docs/pictures.py`, with Chromium for the report.

Commands run in a temporary folder on the sample, and what they print becomes an SVG; the report is photographed.
"""

from __future__ import annotations

import html
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
COLUMNS = 96

# Picture -> the command it shows; they run in this order, as in docs/tutorial.md.
COMMANDS = {
    "terminal-check": "recsys check data/sample/ratings.csv",
    "terminal-compare": (
        "recsys compare data/sample/ratings.csv -m popularity,ials,edlae,vae"
        " --titles data/sample/items.csv -o comparison"
    ),
    "terminal-train": "recsys train data/sample/ratings.csv -m vae -o model",
    "terminal-recommend": (
        "recsys recommend model --user u251 --ratings data/sample/ratings.csv --titles data/sample/items.csv"
    ),
    "terminal-score": "recsys score model data/sample/ratings.csv -n 10 -o lists",
}

MAP = "recsys map model --titles data/sample/items.csv --groups data/sample/items.csv -o map.html"

CHARACTER, LINE, MARGIN, BAR = 7.23, 18, 18, 34  # pixels, at a font size of 12
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}"
 viewBox="0 0 {width:.0f} {height}">
<rect width="100%" height="100%" rx="8" fill="#16202e"/>
<circle cx="20" cy="17" r="5" fill="#f0655a"/><circle cx="38" cy="17" r="5" fill="#f0b84b"/>
<circle cx="56" cy="17" r="5" fill="#4fbf67"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="12"
 fill="#d7dfe9" xml:space="preserve">
{lines}
</g>
</svg>
"""


def main() -> None:
    """Run the commands, draw what they print, photograph the report."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "data" / "sample", folder / "data" / "sample")
        for picture, command in COMMANDS.items():
            (IMAGES / f"{picture}.svg").write_text(terminal(command, run(command, folder)), encoding="utf-8")
        photograph(folder / "comparison" / "report.html", IMAGES / "report.png")
        run(MAP, folder)
        photograph(folder / "map.html", IMAGES / "map.png", height=760)


def run(command: str, folder: Path) -> str:
    """What a command prints; progress and notes, which go to the error stream, are left out."""
    scripts = str(Path(sys.executable).parent)
    environment = os.environ | {"COLUMNS": str(COLUMNS), "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}\n{done.stderr}")
    return done.stdout.replace(f"{folder}/", "")


def terminal(command: str, output: str) -> str:
    """An SVG of a terminal: the command after a prompt, then its output."""
    typed = " \\\n".join(textwrap.wrap(command, COLUMNS - 6, subsequent_indent="    ", break_on_hyphens=False))
    lines = [f"$ {typed}".splitlines(), [""], output.rstrip().splitlines()]
    drawn, width = [], COLUMNS * CHARACTER + 2 * MARGIN
    for number, line in enumerate([line for part in lines for line in part]):
        is_typed = number < len(lines[0])
        drawn.append(text(line[:COLUMNS], BAR + MARGIN + number * LINE, "#8fd0ff" if is_typed else None))
    return SVG.format(
        width=width, height=BAR + 2 * MARGIN + (len(drawn) - 1) * LINE, lines="\n".join(filter(None, drawn))
    )


def text(line: str, y: int, color: str | None) -> str:
    """A line of text whose length is fixed, so that columns stand in any font."""
    if not line.strip():
        return ""
    fill = f' fill="{color}"' if color else ""
    length = f'textLength="{len(line) * CHARACTER:.1f}"'
    return f'<text x="{MARGIN}" y="{y}" {length}{fill}>{html.escape(line).replace(" ", "&#160;")}</text>'


def photograph(page: Path, picture: Path, width: int = 1100, height: int = 880) -> None:
    """Photograph the top of a page in headless Chromium, in few colors."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("Expected Chromium, found none: apt-get install chromium.")
    with tempfile.TemporaryDirectory() as name:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={name}"]
        shot = Path(name) / "shot.png"
        size = ["--force-device-scale-factor=1.5", f"--window-size={width},{height}", f"--screenshot={shot}"]
        light = "--blink-settings=preferredColorScheme=1"
        subprocess.run([browser, *flags, *size, light, page.as_uri()], check=True, capture_output=True, timeout=120)
        Image.open(shot).convert("RGB").quantize(160, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main()
