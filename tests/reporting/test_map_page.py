import json
import re
import subprocess

import numpy as np
import pytest
from browser import BROWSER, FLAGS, look, needs_browser

pytest.importorskip("jinja2")

from recsys.latent.maps import LatentMap
from recsys.latent.projection import Trust
from recsys.reporting.map_page import LIGHT, MapTexts, group_numbers, judge, render_map, script_json
from recsys.reporting.plotting import latent_map

EVIL = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)> & \u2028'


def drawn(n=40, kept=0.6):
    rng = np.random.default_rng(0)
    return LatentMap(
        rows=np.arange(n),
        vectors=np.zeros((n, 8), dtype=np.float32),
        plane=rng.standard_normal((n, 2)).astype(np.float32),
        popularity=np.arange(n, 0, -1),
        clusters=(np.arange(n) % 2).astype(np.int32),
        neighbors=((np.arange(n)[:, None] + np.arange(1, 7)) % n).astype(np.int32),
        method="pca",
        trust=Trust(kept, 0.01, 0.93, 10),
        left_out=0,
    )


def texts(n=40, first="Title 0", groups=None):
    names = [first, *(f"Title {i}" for i in range(1, n))]
    return MapTexts(names, [names[:2], names[2:4]], [f"id{i}" for i in range(n)], groups, model="vae", size=8)


def data_of(page):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_titles_are_text_whatever_they_hold():
    page = render_map(drawn(), texts(first=EVIL))
    assert "<img" not in page and "taken</" not in page
    assert page.count("</script>") == 2  # the data and the script of the page
    assert data_of(page)["t"][0].startswith('</script><script>document.title="taken"')
    assert "\\u2028" in data_of(page)["t"][0] or len(data_of(page)["t"][0]) == 60


def test_json_in_a_script_cannot_end_it():
    text = script_json({"a": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&"}


def test_the_page_asks_nothing_of_the_network():
    page = render_map(drawn(), texts())
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href|url|@import)\s*[=(]""", page)
    assert "http" not in page.replace("http-equiv", "")


def test_twenty_thousand_points_with_long_titles_in_any_language_are_below_five_megabytes():
    n = 20_000
    names = ["動物園の冒険と魔法の森の物語、第二部" + "あ" * 60 + str(i) for i in range(n)]
    groups = [("Action", "Adventure", "Drama")] * n
    long = MapTexts(names[:n], [names[:3], names[3:6]], [f"B00{i:07d}" for i in range(n)], groups)
    assert len(render_map(drawn(n), long).encode()) < 5_000_000


def test_long_titles_are_cut_between_characters():
    page = render_map(drawn(), texts(first="ü" * 59 + "end"))
    assert data_of(page)["t"][0] == "ü" * 53 + "…"
    assert data_of(render_map(drawn(), texts(first="x" * 60)))["t"][0] == "x" * 60


def test_a_map_that_lies_says_so():
    assert [judge(Trust(kept, 0.003, 0.9, 10)).level for kept in (0.6, 0.3, 0.1)] == ["good", "fair", "poor"]
    page = render_map(drawn(kept=0.1), texts())
    assert "Do not trust this map for single items." in page
    assert re.search(r"It keeps 10\s*%", page.replace("\u00a0", ""))
    assert "trustworthiness 0.93 of 1" in page


def test_a_point_has_the_color_of_its_rarest_group_that_has_one():
    many = [("all", f"g{i:02}") for i in range(20)] + [("all",), ()]
    names, numbers = group_numbers(texts(22, groups=many))
    assert names[:2] == ["all", "g00"]
    assert numbers[:2] == [1, 2]
    assert numbers[19:] == [0, 0, -1]  # g19 is beyond the colors
    assert len(names) == 21 > len(LIGHT)


def test_the_picture_has_names_groups_and_the_verdict():
    figure = latent_map(drawn(kept=0.1), texts(first="$x_1$ <b>", groups=[("even",), ()] * 20))
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written[0].startswith("$x_1$ <b>")
    assert "Do not trust" in figure.axes[0].get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["even"]
    figure.canvas.draw()


# As a person sees it

USE = """<body><script>
const frame = document.createElement("iframe");
frame.style.cssText = "width: 1200px; height: 800px; border: 0";
const later = () => new Promise(go => setTimeout(go, 50));
frame.onload = async () => {{
  const page = frame.contentDocument, view = frame.contentWindow, $ = id => page.getElementById(id);
  const inked = () => {{
    const map = $("map"), pixels = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
    let sum = 0; for (let i = 3; i < pixels.length; i += 4) sum += pixels[i] > 0; return sum;
  }};
  const send = (target, kind, name, more) => target.dispatchEvent(new view[kind](name, {{bubbles: true, ...more}}));
  const found = {{}};
  // A busy machine paints few frames.
  view.requestAnimationFrame = paint => {{ paint(view.performance.now()); return 0; }};
  send(view, "Event", "resize"); $("map").focus(); await later();
  found.drawn = inked();
  $("query").value = "títle 17"; send($("query"), "Event", "input"); await later();
  found.results = [...$("found").children].map(one => one.textContent);
  send($("query"), "KeyboardEvent", "keydown", {{key: "Enter"}}); await later(); await later();
  found.chosen = $("chosen").querySelector("b").textContent;
  found.near = [...$("chosen").querySelectorAll("li")].map(one => one.textContent);
  const box = $("map").getBoundingClientRect();
  const middle = {{clientX: box.x + box.width / 2, clientY: box.y + box.height / 2}};
  send($("map"), "PointerEvent", "pointermove", {{pointerType: "mouse", ...middle}}); await later();
  found.tip = $("tip").hidden ? "" : $("tip").textContent;
  send(view, "KeyboardEvent", "keydown", {{key: "Escape"}}); await later();
  found.closed = $("chosen").hidden;
  send($("map"), "KeyboardEvent", "keydown", {{key: "0"}}); await later();
  const whole = inked();
  for (let i = 0; i < 9; i++) send($("map"), "KeyboardEvent", "keydown", {{key: "+"}});
  await later(); found.zoomed = inked() !== whole;
  for (let i = 0; i < 90; i++) send($("map"), "KeyboardEvent", "keydown", {{key: "ArrowLeft"}});
  await later(); found.away = inked();
  $("all").click(); await later(); found.back = Math.abs(inked() - whole) < whole / 10;
  send($("map"), "WheelEvent", "wheel", {{deltaY: -600, cancelable: true, ...middle}}); await later();
  found.wheeled = inked() !== whole;
  $("legend").querySelector("button").click(); await later();
  found.pressed = $("legend").querySelector("button").getAttribute("aria-pressed");
  found.title = page.title;
  document.body.dataset.found = JSON.stringify(found);
}};
frame.srcdoc = {page};
document.body.append(frame);
</script></body>"""


@needs_browser
def test_search_hover_keys_wheel_and_legend_work(tmp_path):
    page = render_map(drawn(), texts(first=EVIL, groups=[("even",), ("odd", "rare")] * 20))
    frame = tmp_path / "use.html"
    # The page must not end the script that carries it.
    frame.write_text(USE.format(page=script_json(page)), encoding="utf-8")
    flags = (
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1300,900",
        "--force-prefers-reduced-motion",
    )
    command = [BROWSER, *flags, "--virtual-time-budget=20000", "--dump-dom", frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(re.search(r'data-found="([^"]*)"', shown)[1].replace("&quot;", '"').replace("&amp;", "&"))
    assert found["drawn"] > 1000
    assert found["results"] == ["Title 17"]
    assert found["chosen"] == "Title 17"
    assert found["near"] == [f"Title {i}" for i in range(18, 24)]
    assert found["tip"].startswith("Title 17") and "23 users · " in found["tip"]
    assert found["closed"] and found["zoomed"] and found["back"] and found["wheeled"]
    assert found["away"] == 0
    assert found["pressed"] == "true"
    assert found["title"] == "Map of 40 items"  # the title of an item ran no script


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, 0), (1280, 1)])
def test_nothing_sticks_out_and_the_colors_follow_the_reader(tmp_path, width, scheme):
    found = look(render_map(drawn(), texts(first="W" * 300)), tmp_path, width, scheme)
    assert not found["wide"]
    assert found["paper"] == ("rgb(255, 255, 255)" if scheme else "rgb(22, 23, 26)")
