"""Write the sample in data/sample: generated readers, titles and ratings, with tastes that a model can learn.

    python data/make_sample.py [FOLDER]

Ten genres of 34 titles. Half of each genre is light and half is dark, and about a third of it comes in series of three
volumes. A reader has one to three genres, leans to the light or to the dark in all of them, starts a series at its
first volume and continues while they like the volumes; some titles are picked by popularity alone. Ratings follow the
same tastes.

Every file is the same byte for byte on any machine: of the random module only random() is used, whose stream Python
promises to keep, and of arithmetic only + - * /, which every processor rounds alike.
"""

from __future__ import annotations

import csv
import itertools
import sys
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SEED = 20
USERS = 750
VOLUMES = ("", " II", " III")
DAY = 24 * 3600
OPENING = 1_640_995_200  # 2022-01-01 00:00 UTC

# genre: (share of the readers, how titles begin, light endings, dark endings, light series, dark series)
GENRES = {
    "space": (
        6,
        "Orbit of the, Signals from the, Return to the, Beyond the, Children of the, Map of the",
        "Laughing Moon, Paper Rocket, Friendly Comet",
        "Dead Star, Black Nebula, Silent Planet",
        "Starship Marigold, Robot Number Nine",
        "The Jupiter Siege, Cold Airlock",
    ),
    "mystery": (
        10,
        "The Clue in the, Murder at the, The Secret of the, A Suspect in the, Alibi for the, Evidence from the",
        "Tea Room, Village Fair, Cat Museum",
        "Locked Cellar, Morgue, Harbour Fog",
        "Inspector Plum, The Biscuit Detectives",
        "Detective Karr, The Bone Files",
    ),
    "romance": (
        9,
        "A Kiss at the, Letters from the, Falling in Love at the, A Wedding at the, Hearts of the, Two Tickets to the",
        "Lavender Farm, Seaside Bakery, Rose Garden",
        "Winter Hospital, Abandoned Chapel, Last Station",
        "Love in Lisbon, The Matchmaker of Mill Lane",
        "The Widow's Promise, Love After the War",
    ),
    "fantasy": (
        8,
        "The Dragon of the, Song of the, The Wizard of the, Heirs of the, The Sword of the, Riddles of the",
        "Emerald Meadow, Singing Forest, Whispering Brook",
        "Ashen Throne, Bleeding Crown, Cursed Tower",
        "The Clumsy Sorcerer, Elves of Honeywood",
        "The Raven King, The Necromancer's Oath",
    ),
    "sea": (
        5,
        "Voyage to the, The Captain of the, Storm over the, The Lighthouse of the, The Mermaid of the, Tides of the",
        "Coral Bay, Blue Lagoon, Dolphin Islands",
        "Drowned Reef, Black Wreck, Frozen Strait",
        "Pirates on Holiday, Sailing with Aunt Agnes",
        "Submarine Ninety, Mutiny on the Esperance",
    ),
    "western": (
        4,
        "The Sheriff of the, Gold in the, The Last Train to the, Riders of the, A Horse for the, Saloon at the",
        "Sunny Prairie, Apple Canyon, Dancing Cactus",
        "Hanging Tree, Vulture Gulch, Dry River",
        "Cowgirl Clementine, The Singing Ranch",
        "Bounty at Sundown, The Outlaw Brothers",
    ),
    "cooking": (
        5,
        "Recipes from the, The Chef of the, Supper at the, A Taste of the, The Kitchen of the, Spices from the",
        "Orange Grove, Sunday Market, Olive Terrace",
        "Hungry Winter, Midnight Diner, Failing Bistro",
        "Soup for Friends, The Travelling Baker",
        "Confessions of a Chef, Knives on Fire",
    ),
    "sport": (
        6,
        "Champions of the, Goalkeeper of the, Marathon to the, Season of the, Penalty in the, Coach of the",
        "School Yard, Village Eleven, Snow Cup",
        "Empty Stadium, Broken Team, Final Round",
        "Football Grannies, The Slowest Cyclist",
        "The Boxer's Debt, The Fallen Striker",
    ),
    "ghosts": (
        7,
        "The Ghost of the, Haunting of the, A Scream in the, The Phantom of the, Nightfall at the, The Curse of the",
        "Pumpkin Patch, Toy Shop, Library Ladder",
        "Rotting Manor, Old Asylum, Nameless Grave",
        "My Roommate Is a Ghost, The Shy Vampire",
        "The Hollow House, They Came at Night",
    ),
    "music": (
        4,
        "Ballad of the, The Drummer of the, Blues for the, The Orchestra of the, A Melody from the, Waltz of the",
        "Summer Stage, Garage Band, Dancing Bear",
        "Burning Opera, Lonely Piano, Prison Choir",
        "The Ukulele Club, Disco Dentist",
        "The Violinist's Silence, Requiem for a Rock Star",
    ),
}
SINGLES = 11  # titles outside series in each half of a genre


@dataclass(frozen=True)
class Item:
    """One title: `half` is 0 (light) or 1 (dark), `series` its name or empty, `volume` from 0, `quality` -0.5..0.5."""

    title: str
    genre: str
    half: int
    series: str
    volume: int
    quality: float


@dataclass
class Reader:
    """One generated reader and what they have read: item position to rating, in order."""

    genres: list[str]
    shares: tuple[int, ...]
    half: int
    mood: float  # how generously this person rates
    rated: dict[int, int] = field(default_factory=dict)
    opinions: dict[str, float] = field(default_factory=dict)  # of a series, -1..1


def pick(rng: Random, weights: Sequence[float]) -> int:
    """A position drawn with the given weights."""
    total = list(itertools.accumulate(weights))
    return min(bisect(total, rng.random() * total[-1]), len(weights) - 1)


def noise(rng: Random) -> float:
    """Bell-shaped around 0, standard deviation 0.5, within -1.5..1.5: three uniform numbers added."""
    return rng.random() + rng.random() + rng.random() - 1.5


def shuffled(rng: Random, values: Iterable[str]) -> list[str]:
    """The values in random order."""
    return [value for _, value in sorted((rng.random(), value) for value in values)]


def make_items(rng: Random) -> list[Item]:
    """All titles, genre by genre, in random order of popularity within a genre."""
    items = []
    for genre, (_, openings, light, dark, light_series, dark_series) in GENRES.items():
        for half, (endings, series) in enumerate([(light, light_series), (dark, dark_series)]):
            titles = itertools.product(openings.split(", "), endings.split(", "))
            singles = shuffled(rng, (f"{opening} {ending}" for opening, ending in titles))[:SINGLES]
            rows = [(title, "", 0) for title in singles]
            rows += [(name + vol, name, number) for name in series.split(", ") for number, vol in enumerate(VOLUMES)]
            items += [Item(title, genre, half, name, number, rng.random() - 0.5) for title, name, number in rows]
    return items


def make_popularity(items: Sequence[Item], rng: Random) -> list[float]:
    """Weight of each item: a few are popular, most are not; the share of the genre counts too."""
    ranks = sorted(range(len(items)), key=lambda _: rng.random())
    return [GENRES[item.genre][0] * len(items) / (rank + 10) for item, rank in zip(items, ranks, strict=True)]


def make_reader(rng: Random) -> Reader:
    """A reader with one to three genres, the favorite first."""
    shares = ((1,), (2, 1), (3, 2, 1))[pick(rng, (3, 4, 3))]
    genres: list[str] = []
    while len(genres) < len(shares):
        genre = list(GENRES)[pick(rng, [entry[0] for entry in GENRES.values()])]
        genres += [] if genre in genres else [genre]
    return Reader(genres, shares, half=int(rng.random() < 0.5), mood=0.8 * noise(rng))


def rate(reader: Reader, item: Item, rng: Random) -> int:
    """The reader's rating of an item, 1 to 5: genre and half count most, then the series, then the item itself."""
    liking = (1.0 if item.genre in reader.genres else -0.7) + (0.4 if item.half == reader.half else -0.5)
    if item.series:
        liking += reader.opinions.setdefault(item.series, 2 * rng.random() - 1)
    return max(1, min(5, int(3.0 + liking + item.quality + reader.mood + 0.8 * noise(rng) + 0.5)))


def choose(reader: Reader, items: Sequence[Item], popularity: Sequence[float], rng: Random) -> int:
    """The next title: sometimes one picked by popularity alone, otherwise one to the reader's taste."""
    genre = None if rng.random() < 0.3 else reader.genres[pick(rng, reader.shares)]
    half = reader.half if rng.random() < 0.75 else 1 - reader.half
    shelf = [
        position
        for position, item in enumerate(items)
        if position not in reader.rated and (genre is None or (item.genre == genre and item.half == half))
    ]
    if not shelf:
        return choose(reader, items, popularity, rng)
    return first_unread(reader, items, shelf[pick(rng, [popularity[position] for position in shelf])])


def first_unread(reader: Reader, items: Sequence[Item], position: int) -> int:
    """The item itself, or the earliest volume of its series that the reader has not read."""
    first = position - items[position].volume
    return next(volume for volume in range(first, position + 1) if volume not in reader.rated)


def next_volume(reader: Reader, items: Sequence[Item], position: int, rng: Random) -> int | None:
    """The following volume, if there is one and the reader liked the last one."""
    item = items[position]
    if not item.series or item.volume + 1 == len(VOLUMES) or position + 1 in reader.rated:
        return None
    continues = {5: 0.7, 4: 0.5, 3: 0.2}.get(reader.rated[position], 0.0)
    return position + 1 if rng.random() < continues else None


def read_books(reader: Reader, items: Sequence[Item], popularity: Sequence[float], rng: Random) -> None:
    """Fill `reader.rated`: 8 to 62 titles, most readers near the low end."""
    share = rng.random()
    length = 8 + int(55 * share * share)
    following: int | None = None
    while len(reader.rated) < length:
        position = choose(reader, items, popularity, rng) if following is None else following
        reader.rated[position] = rate(reader, items[position], rng)
        following = next_volume(reader, items, position, rng)


def times(start: int, rng: Random) -> Iterator[int]:
    """Increasing seconds since 1970: a few ratings in one session, then days without any."""
    while True:
        yield start
        start += 20 + int(280 * rng.random()) if rng.random() < 0.7 else DAY + int(20 * DAY * rng.random())


def make_ratings(items: Sequence[Item], rng: Random) -> Iterator[tuple[str, str, int, int]]:
    """Rows user_id, item_id, rating, timestamp; users in the order they joined, their rows in order of time."""
    popularity = make_popularity(items, rng)
    joined = sorted(OPENING + int(700 * DAY * rng.random()) for _ in range(USERS))
    for number, start in enumerate(joined, start=1):
        reader = make_reader(rng)
        read_books(reader, items, popularity, rng)
        for (position, rating), time in zip(reader.rated.items(), times(start, rng), strict=False):
            yield f"u{number:03d}", item_id(position), rating, time


def item_id(position: int) -> str:
    """Id of the item at a position."""
    return f"i{position + 1:03d}"


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows with LF line ends on every system."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_sample(folder: Path) -> None:
    """Write items.csv and ratings.csv into `folder`."""
    rng = Random(SEED)
    items = make_items(rng)
    folder.mkdir(parents=True, exist_ok=True)
    titles = ((item_id(position), item.title, item.genre) for position, item in enumerate(items))
    write_csv(folder / "items.csv", ("item_id", "title", "genre"), titles)
    write_csv(folder / "ratings.csv", ("user_id", "item_id", "rating", "timestamp"), make_ratings(items, rng))


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sample"))
