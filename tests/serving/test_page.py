import numpy as np
import pandas as pd
import pytest
from browser import needs_browser
from driven_browser import drive
from test_http import KEY, Running, current

from recsys import fit
from recsys.data.reading import read_interactions
from recsys.serving.http import create_app
from recsys.serving.lists import ListMaker
from recsys.serving.page import Catalog

TITLES = {"a": "Alien", "b": "Brazil", "c": "Alien Nation <b>", "d": "The Third Man", "e": "Élan"}
ROWS = [("u1", i) for i in "abc"] + [("u2", i) for i in "abd"] + [("u3", i) for i in "bc"] + [("u4", "b"), ("u5", "e")]
RATINGS = pd.DataFrame(ROWS, columns=["user_id", "item_id"])  # b 4 users, a and c 2, d and e 1


def titled(folder=None):
    return ListMaker(fit(RATINGS, "ease", held_out=0), read_interactions(RATINGS), TITLES)


@pytest.fixture(scope="module")
def address():
    with Running(create_app(current(None, load=titled), has_page=True)) as client:
        yield f"http://127.0.0.1:{client.port}"


@pytest.fixture(scope="module", autouse=True)
def without_a_folder():
    """The model is in memory: its stamp never changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_http.folder_stamp", lambda folder: "stamp")
        yield


def found(text):
    return [entry["item_id"] for entry in Catalog(titled()).search(text)]


def test_a_search_finds_words_in_any_case_and_order_popular_first_beginnings_before_others():
    assert found("ALIEN") == ["a", "c"]
    assert found("man third") == ["d"]
    assert found("b") == ["b", "c"]  # Brazil begins with it; <b> is in a title
    assert found("éLAN") == ["e"]
    assert found("xyz") == found("  ") == []


def test_the_page_may_load_nothing_from_elsewhere():
    with Running(create_app(current(None, load=titled), has_page=True)) as client:
        status, text, headers = client.ask("/")
        assert status == 200 and "default-src 'none'" in headers["content-security-policy"]
        assert "http" not in text.replace("http-equiv", "")
        assert [one["item_id"] for one in client.ask("/page/popular")[1]["items"]] == ["b", "a", "c", "d", "e"]
        assert client.ask("/page/history/u3")[1]["items"][0]["title"] == "Brazil"
        assert client.ask("/page/history/nobody")[0] == 404


def test_without_being_asked_for_there_is_no_page():
    with Running(create_app(current(None, load=titled), keys=[KEY])) as client:
        assert client.ask("/")[0] == 404
        assert client.ask("/page/popular")[0] == 401


LIST = "[...document.querySelectorAll('#list .title')].map(one => one.textContent)"
CHIPS = "[...document.querySelectorAll('#likes li')].map(one => one.firstChild.textContent)"


@needs_browser
def test_by_keyboard_titles_are_chosen_and_the_list_changes(address):
    async def script(page):
        first = await page.until(f"{LIST}.length && {LIST}")
        await page.value("document.getElementById('search').focus()")
        await page.type("alien")
        await page.until("document.querySelectorAll('[role=option]').length === 2")
        await page.press("ArrowDown")
        assert await page.value("document.querySelector('[aria-selected=true]').textContent") == "Alien Nation <b>"
        await page.press("Enter")
        await page.until("document.getElementById('list-heading').textContent === 'For you'")
        chosen, changed = await page.value(CHIPS), await page.value(LIST)
        assert "because of Alien Nation <b>" in await page.value("document.getElementById('list').textContent")
        await page.value("document.getElementById('search').focus()")
        await page.type("zzz")
        await page.press("Enter")
        assert await page.value(CHIPS) == chosen
        return first, chosen, changed, await page.value("document.querySelectorAll('main b').length")

    (first, chosen, changed, markup), hosts = drive(address, script)
    assert first[0] == "Brazil" and chosen == ["Alien Nation <b>"]
    assert set(changed) == {"Brazil", "Alien", "The Third Man", "Élan"} and markup == 0
    assert hosts == {address.removeprefix("http://")}


@needs_browser
def test_by_mouse_items_are_liked_removed_and_compared_and_users_shown(address):
    async def script(page):
        await page.until(f"{LIST}.length")
        await page.click("#list .tools button:last-child")
        await page.until("document.getElementById('list-heading').textContent === 'For you'")
        liked = await page.value(CHIPS)
        await page.click("#list .tools button")
        similar = await page.until("document.querySelector('#similar .title')?.textContent")
        await page.click("#likes button")
        await page.until("document.getElementById('list-heading').textContent === 'Popular with everybody'")
        await page.click("#user")
        await page.type("u3")
        await page.click("#user-form button")
        await page.until("document.getElementById('list-heading').textContent === 'For user u3'")
        history = await page.until("document.getElementById('history').textContent")
        return liked, similar, history, await page.value(LIST)

    (liked, similar, history, listed), _ = drive(address, script)
    assert liked == ["Brazil"] and similar in TITLES.values()
    assert history.startswith("2 items: ") and set(listed) == {"Alien", "The Third Man", "Élan"}


def popular(folder=None):
    return ListMaker(fit(RATINGS, "popularity", held_out=0), read_interactions(RATINGS), TITLES)


@pytest.fixture(scope="module")
def compared():
    beside = current(None, load=popular)
    with Running(create_app(current(None, load=titled), has_page=True, beside=beside)) as client:
        yield client


def test_the_lists_of_the_model_beside_are_its_own(compared):
    history = {"history": [{"item_id": "a"}], "n": 3}
    assert compared.ask("/page/beside", history)[1]["model"] == "popularity"
    assert [one["item_id"] for one in compared.ask("/page/beside", history)[1]["items"]] == ["b", "c", "d"]
    assert [one["item_id"] for one in compared.ask("/page/beside/u3?n=2")[1]["items"]] == ["a", "d"]
    assert compared.ask("/page/beside/u3?n=0")[0] == compared.ask("/page/beside/u3?n=1001")[0] == 400
    assert compared.ask("/recommend", history)[1]["model"] == "ease"
    assert compared.ask("/page/facts")[1]["beside"]["model"] == "popularity"
    with Running(create_app(current(None, load=titled), has_page=True)) as alone:
        assert alone.ask("/page/beside", history)[0] == 404 and alone.ask("/page/facts")[1]["beside"] is None


@needs_browser
def test_two_models_are_shown_side_by_side_with_what_only_one_lists(compared):
    async def script(page):
        await page.until("document.querySelectorAll('.compared #list .title').length")
        assert await page.value("document.getElementById('beside-card').hidden")
        await page.click("#user")
        await page.type("u4")  # has b: a and c for ease; for popularity as well, in the order of users
        await page.click("#user-form button")
        await page.until("document.querySelectorAll('#beside .title').length")
        both = [await page.value(LIST.replace("#list", name)) for name in ("#list", "#beside")]
        heads = await page.value("[...document.querySelectorAll('#lists h2')].map(one => one.textContent)")
        await page.click("#beside .tools button:last-child")
        await page.until("document.getElementById('list-heading').textContent === 'For you: ease'")
        return both, heads, await page.value("document.documentElement.scrollWidth > innerWidth")

    (both, heads, is_wide), hosts = drive(f"http://127.0.0.1:{compared.port}", script)
    assert heads == ["For user u4: ease", "For user u4: popularity"]
    assert set(both[0]) == set(both[1]) == {"Alien", "Alien Nation <b>", "The Third Man", "Élan"}
    assert not is_wide and len(hosts) == 1


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_and_everything_has_a_name(address, width):
    async def script(page):
        await page.until(f"{LIST}.length")
        wide = await page.value("document.documentElement.scrollWidth > innerWidth")
        nameless = await page.value(
            "[...document.querySelectorAll('button, input')].filter(one =>"
            " !one.getAttribute('aria-label') && !one.labels?.length && !one.textContent.trim()).length"
        )
        return wide, nameless

    assert drive(address, script, width)[0] == (False, 0)


def test_the_order_of_popularity_is_that_of_training():
    assert np.diff([titled().trained.item_counts[at] for at in Catalog(titled())._by_popularity]).max() <= 0
