import json
import re

import numpy as np
import pandas as pd
import pytest
from browser import needs_browser
from driven_browser import drive
from scipy.sparse import csr_matrix

from pipelines.explore import ExploreJob, run
from recsys import fit, save_model
from recsys.data.reading import ReadingOptions
from recsys.errors import ArtifactError, ConfigError, DataError, UnsupportedError
from recsys.serving.explorer import explorer_page, made_up_histories, make_explorer, measure_overlap


def tastes(users=80, items=24):
    """Users of two tastes; each takes most of one half of the items."""
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i:02}") for u in range(users) for i in range(u % 2, items, 2) if rng.random() < 0.6]
    return pd.DataFrame(rows, columns=["user_id", "item_id"])


@pytest.fixture(scope="module")
def ease():
    return fit(tastes(), "ease", held_out=0)


def histories(trained, *lists):
    matrix = np.zeros((len(lists), len(trained.items)), dtype=np.float32)
    for row, items in enumerate(lists):
        matrix[row, trained.items.positions(items)] = 1
    return csr_matrix(matrix)


def test_a_linear_models_page_scores_as_the_model_to_8_bits(ease):
    explorer = make_explorer(ease)
    assert explorer.columns.shape == (24, 23) and not explorer.base.any()
    history = histories(ease, ["i00", "i02"], ["i01"])
    expected = ease.model.score(history).numpy()[:, explorer.positions]
    found = explorer.score(csr_matrix(history[:, explorer.positions]))
    unseen = history[:, explorer.positions].toarray() == 0
    assert np.abs(found - expected)[unseen].max() <= 2 * explorer.scales.max()
    assert measure_overlap(ease, explorer, history) >= 0.8


def test_the_popular_items_come_first_and_stay_where_room_is_short(ease):
    explorer = make_explorer(ease, most_bytes=4 * 24 * 10)
    assert len(explorer.positions) == 10
    assert ease.item_counts[explorer.positions].min() >= np.sort(ease.item_counts)[-10]
    assert (explorer.columns < 10).all() and (explorer.similar < 10).all()


def test_similar_items_are_those_of_the_model(ease):
    explorer = make_explorer(ease)
    nearest, _ = ease.model.similar_items(int(explorer.positions[0]), N=9)
    assert explorer.positions[explorer.similar[0]].tolist() == nearest[1:].tolist()


def test_other_models_are_approximated(ease):
    als = fit(tastes(), "als", held_out=0)
    explorer = make_explorer(als)
    assert explorer.base.any()
    overlap = measure_overlap(als, explorer, made_up_histories(explorer, len(als.items), 50))
    assert 0.5 < overlap <= 1


def test_who_has_had_everything_has_no_list_to_compare(ease):
    explorer = make_explorer(ease)
    everything, one = np.ones((1, 24)), np.eye(1, 24)
    overlap = measure_overlap(ease, explorer, csr_matrix(one))
    assert measure_overlap(ease, explorer, csr_matrix(np.vstack([one, everything]))) == overlap > 0
    with pytest.raises(DataError, match="leave an item of the page to list"):
        measure_overlap(ease, explorer, csr_matrix(everything))


def test_models_that_cannot_list_for_new_users_are_refused():
    with pytest.raises(UnsupportedError, match="new users, found bpr"):
        make_explorer(fit(tastes(), "bpr", held_out=0))


def test_a_model_of_sequences_is_refused_because_the_page_adds_up_items():
    chain = fit(tastes(), "last-item", held_out=0, reading=ReadingOptions(order="rows"))
    with pytest.raises(UnsupportedError, match="histories without order, found last-item"):
        make_explorer(chain)


def test_made_up_histories_have_items_that_support_each_other(ease):
    explorer = make_explorer(ease)
    found = made_up_histories(explorer, len(ease.items), 40)
    assert found.shape == (40, 24) and np.diff(found.indptr).max() == 5
    taste = [{int(ease.items.to_list()[at][1:]) % 2 for at in row.indices} for row in found]
    assert np.mean([len(one) == 1 for one in taste]) > 0.8


def test_titles_cannot_leave_their_place(ease):
    page = explorer_page(ease, make_explorer(ease), {"i00": "</script><b>"}, "note")
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert dict(json.loads(data)["items"])["i00"] == "</script><b>"


def test_the_job_writes_the_page_and_says_how_far_it_agrees(ease, tmp_path):
    save_model(tmp_path / "model", ease)
    tastes().to_csv(tmp_path / "ratings.csv", index=False)
    job = ExploreJob(tmp_path / "model", ratings=tmp_path / "ratings.csv", output=tmp_path / "page.html")
    made = run(job)
    assert made.file.stat().st_size == made.bytes < 5_000_000 and made.overlap > 0.7
    assert made.note in made.file.read_text() and "80 users of the ratings" in made.note
    with pytest.raises(ArtifactError, match="exists"):
        run(job)
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        ExploreJob(tmp_path / "model", output=tmp_path / "page.txt")


@needs_browser
def test_in_the_browser_the_list_is_the_one_of_the_same_arithmetic(ease, tmp_path):
    explorer = make_explorer(ease)
    file = tmp_path / "page.html"
    file.write_text(explorer_page(ease, explorer, {"i00": "Zero <b>"}, "A note."), encoding="utf-8")
    titles = "[...document.querySelectorAll('#list .title')].map(one => one.textContent)"

    async def script(page):
        await page.until(f"{titles}.length")
        await page.value("document.getElementById('search').focus()")
        await page.type("zero")
        await page.until("document.querySelectorAll('[role=option]').length === 1")
        await page.press("Enter")
        await page.until("document.getElementById('list-heading').textContent === 'For you'")
        listed, why = await page.value(titles), await page.value("document.querySelector('.why').textContent")
        await page.click("#list .tools button")
        similar = await page.until("document.querySelector('#similar .title')?.textContent")
        return listed, why, similar, await page.value("document.getElementById('note').textContent")

    (listed, why, similar, note), hosts = drive(file.as_uri(), script)
    history = csr_matrix(histories(ease, ["i00"])[:, explorer.positions])
    scores = np.where(history.toarray()[0] > 0, -np.inf, explorer.score(history)[0])
    ids = np.array(ease.items.to_list())[explorer.positions]
    assert listed == ids[np.argsort(-scores, kind="stable")[:12]].tolist()
    assert why == "because of Zero <b>" and similar in {*ids, "Zero <b>"} and note == "A note."
    assert hosts == {""}  # the file itself
