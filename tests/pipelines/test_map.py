"""map from a model folder to its page: clusters on the terminal, titles and groups, refusals before the work."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from model_folders import save
from tastes import two_tastes, write_csv

pytest.importorskip("jinja2")
pytest.importorskip("sklearn")

from pipelines import map as mapping
from pipelines.cli.main import main
from pipelines.map import MapJob
from recsys.artifacts import save_model
from recsys.errors import ArtifactError, ConfigError, DataError, UnsupportedError
from recsys.models import create_model
from recsys.models.trained import TrainedModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ratings of two tastes, a model of them, titles and groups."""
    folder, interactions = tmp_path_factory.mktemp("map"), two_tastes()
    data = interactions.to_matrix()
    model = create_model("svd", {"factors": 2}).fit(data.matrix)
    save_model(folder / "model", TrainedModel(model, data.items, data.item_counts))
    write_csv(folder / "ratings.csv", interactions)
    (folder / "titles.csv").write_text(
        "item_id,title,genre\n" + "".join(f"i{i},Title {i},{'A|C' if i < 6 else 'B'}\n" for i in range(12)) + "x,y,z\n",
        encoding="utf-8",
    )
    return folder


@pytest.fixture
def job(folder, tmp_path):
    titles = folder / "titles.csv"
    return MapJob(folder / "model", titles, titles, clusters=2, output=tmp_path / "map.html")


def page_data(job):
    page = job.output.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_two_tastes_are_two_clusters_with_titles_and_groups(job):
    found = mapping.run(job)
    assert (found.points, found.noun, found.left_out) == (12, "item", 0)
    assert [cluster["points"] for cluster in found.clusters] == [6, 6]
    assert all(title.startswith("Title ") for cluster in found.clusters for title in cluster["titles"])
    assert found.unknown["titles"].first == ("x",) and found.unknown["groups"].count == 1
    data = page_data(job)
    own = {
        title: {data["groups"][g]["name"] for g in groups} for title, groups in zip(data["t"], data["g"], strict=True)
    }
    assert own["Title 0"] == {"A", "C"} and own["Title 11"] == {"B"}
    of = dict(zip(data["t"], data["c"], strict=True))
    assert len({of[f"Title {i}"] for i in range(6)}) == 1 and of["Title 0"] != of["Title 11"]


def test_the_same_seed_gives_the_same_bytes(job, tmp_path):
    again = replace(job, output=tmp_path / "again.html")
    mapping.run(job), mapping.run(again)
    assert job.output.read_bytes() == again.output.read_bytes()


def test_users_are_drawn_and_their_clusters_named_by_items(job, folder):
    found = mapping.run(replace(job, groups=None, users=folder / "ratings.csv", method="tsne"))
    assert (found.points, found.noun) == (40, "user")
    names = [{int(title.removeprefix("Title ")) // 6 for title in cluster["titles"]} for cluster in found.clusters]
    assert sorted(map(sorted, names)) == [[0], [1]]
    assert sorted(page_data(job)["t"]) == sorted(f"u{i}" for i in range(40))


def test_a_picture_is_drawn_where_the_name_asks_for_one(job, tmp_path):
    pytest.importorskip("matplotlib")
    picture = replace(job, output=tmp_path / "map.png")
    mapping.run(picture)
    assert picture.output.read_bytes().startswith(b"\x89PNG")


def test_without_titles_points_have_their_ids(job):
    mapping.run(replace(job, titles=None, groups=None))
    assert set(page_data(job)["t"]) == {f"i{i}" for i in range(12)}


def test_the_most_popular_items_are_drawn(job):
    assert mapping.run(replace(job, max_points=5)).left_out == 7


def test_the_terminal_names_clusters_and_says_how_far_to_trust_the_map(folder, tmp_path):
    words = ["map", str(folder / "model"), "--titles", str(folder / "titles.csv"), "-o", str(tmp_path / "m.html")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "12 items drawn." in done.output and "trustworthiness" in done.output
    told_lines = [line for line in done.stdout.splitlines() if not line.startswith("Map: ")]  # a path of any length
    assert max(map(len, told_lines)) <= 80
    told = json.loads(CliRunner().invoke(main, ["--json", *words, "--overwrite"]).stdout)
    assert told["trust"]["neighbors"] == 5 and 0 <= told["trust"]["kept"] <= 1


def test_what_cannot_be_done_is_refused_before_the_work(job, folder, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.html or \.png"):
        replace(job, output=tmp_path / "map.jpg")
    with pytest.raises(ConfigError, match="groups are those of items"):
        replace(job, users=folder / "ratings.csv")
    with pytest.raises(ConfigError, match="max_points"):
        replace(job, max_points=2)
    with pytest.raises(ConfigError, match="clusters"):
        mapping.run(replace(job, clusters=17))
    job.output.write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match="already exists"):
        mapping.run(job)
    assert job.output.read_text(encoding="utf-8") == "mine"


def test_a_model_without_embeddings_and_users_without_known_items_are_refused(job, tmp_path):
    save(tmp_path / "popular", name="popularity")
    with pytest.raises(UnsupportedError, match="popularity has no embeddings"):
        mapping.run(replace(job, model=tmp_path / "popular"))
    (tmp_path / "strangers.csv").write_text("user_id,item_id\nu,q\nv,r\nw,s\n", encoding="utf-8")
    with pytest.raises(DataError, match="at least 3 points"):
        mapping.run(replace(job, groups=None, users=tmp_path / "strangers.csv"))
    assert not job.output.exists()


def test_coordinates_stand_in_one_scale(job):
    mapping.run(job)
    x, y = (np.array(page_data(job)[axis]) for axis in "xy")
    assert max(np.ptp(x), np.ptp(y)) == 10_000 and x.min() == y.min() == 0
