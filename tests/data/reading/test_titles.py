from __future__ import annotations

import pytest
from paths import SHARED

from recsys.data.reading import read_groups, read_titles
from recsys.errors import DataError


def titles(tmp_path, text: str | bytes, **options):
    path = tmp_path / "items"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_titles(path, **options)


@pytest.mark.parametrize(
    "text",
    [
        'movieId,title,genres\r\n007,"Toy, Story",A|B\r\n8,Heat,C\r\n',
        "Game_ID\tGame Name\n007\tToy, Story\n8\tHeat\n",
        "id\turl\tname\n007\tx\tToy, Story\n8\ty\tHeat\n",
        "007::Toy, Story::A|B\n8::Heat::C\n",
        "007|Toy, Story|1995|0\n8|Heat|1995|1\n",
    ],
)
def test_titles_are_found_by_name_or_place(tmp_path, text):
    assert titles(tmp_path, text) == {"007": "Toy, Story", "8": "Heat"}


def test_latin_1_is_read_where_utf_8_will_not_do(tmp_path):
    assert titles(tmp_path, "1::Amélie\n2::Heat\n".encode("latin-1")) == {"1": "Amélie", "2": "Heat"}
    assert titles(tmp_path, "1::Amélie\n2::Heat\n") == {"1": "Amélie", "2": "Heat"}


def test_the_first_title_of_an_id_counts(tmp_path):
    assert titles(tmp_path, "item_id,title\n1,a\n1,b\n") == {"1": "a"}


@pytest.mark.parametrize("text", ["", "\n", "item_id,title\n", "column\n"])
def test_a_table_without_titles_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="Expected"):
        titles(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="Check the path"):
        read_titles(tmp_path / "none")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which is not there")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("ml-latest-small/movies.csv", 9_742), ("ml-1m/movies.dat", 3_883), ("ml-100k/u.item", 1_682)),
        *(("steam-200k/item_info.dat", 5_155), ("lastfm-hetrec2011/artists.dat", 17_632)),
    ],
)
def test_real_tables_of_titles_are_read(name, count):
    assert len(read_titles(SHARED / name)) == count


@pytest.mark.parametrize(
    "text",
    [
        "item_id,group\n007,A|B\n8,\n9,C\n",
        "movieId,title,year,genres\n007,Heat,1995,A| B|A\n9,Toy,1995,C\n",
        "007::Heat::A|B\n9::Toy::C\n",
        "brand,item_id\nA|B,007\nC,9\n",
    ],
)
def test_groups_are_found_by_name_or_place_and_several_stand_between_bars(tmp_path, text):
    path = tmp_path / "table"
    path.write_text(text, encoding="utf-8")
    assert read_groups(path) == {"007": ("A", "B"), "9": ("C",)}


@pytest.mark.parametrize("text", ["", "item_id,group\n", "item_id,group\n1,\n2,|\n"])
def test_a_table_without_groups_is_refused(tmp_path, text):
    path = tmp_path / "table"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"groups|a group"):
        read_groups(path)


def test_a_header_without_a_known_name_of_the_group_is_no_item(tmp_path):
    path = tmp_path / "table"
    path.write_text("item_id,label\n1,A\n", encoding="utf-8")
    assert read_groups(path) == {"1": ("A",)}
