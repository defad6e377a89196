"""A report as a person would see it: opened in headless Chromium, where there is one."""

import json
import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--run-all-compositor-stages-before-draw",
    ),
)
# The page in a frame of the wanted width (a window cannot be as narrow as a phone), asked as a person would see it:
# does anything stick out to the right, which charts have no size, which colors are on.
FRAME = """<body><script>
const frame = document.createElement("iframe");
frame.style.width = "{width}px";
frame.style.border = 0;
frame.onload = () => {{
  const page = frame.contentDocument, view = frame.contentWindow;
  const charts = [...page.querySelectorAll("svg.chart")].map(svg => svg.getBoundingClientRect());
  document.body.dataset.found = JSON.stringify({{
    width: view.innerWidth, wide: page.documentElement.scrollWidth > view.innerWidth,
    charts: charts.length, flat: charts.filter(box => box.width < 200 || box.height < 60).length,
    paper: view.getComputedStyle(page.body).backgroundColor, ink: view.getComputedStyle(page.body).color,
  }});
}};
frame.srcdoc = {page};
document.body.append(frame);
</script></body>"""

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")


def look(page, folder, width=1280, scheme=1):
    """What FRAME asks of an HTML page, as a dict. `scheme`: 0 dark, 1 light."""
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width, page=json.dumps(page).replace("</", "<\\/")), encoding="utf-8")
    flags = (*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}")
    command = [BROWSER, *flags, "--window-size=1400,2000", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(re.search(r'data-found="([^"]*)"', shown)[1].replace("&quot;", '"'))
