"""Fuzz targets: made-up and damaged inputs of every kind, each of which must be read right or refused with the reason.

A target makes one trial from a random generator; an exception other than RecsysError, or a wrong result, is a finding.
Trials run in forks, so that a crash of the process is a finding too. `python tests/fuzzing.py --trials 20000` runs all
targets for long; tests/test_fuzzing.py runs each briefly.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing_http import http_request

Random = np.random.Generator
MODELS = ("ease", "item-knn", "sparse-ease", "bspm", "svd", "vae", "rbm", "popularity", "edlae", "blend", "biases")
TEXTS = [
    "",
    " ",
    "a",
    "007",
    "-1",
    "1e400",
    "nan",
    "NULL",
    "é",
    "\u2028",
    "\ufeff",
    '"',
    "'",
    "\\",
    "\0",
    "\x1b[31m",
    "=1+1",
]
TEXTS += ["2020-01-01", "31/12/2019", "4,5", "4,000", "1" * 30, "::", "|", ";", "\t", ",", "x" * 300]


def some_text(rng: Random) -> str:
    """A text that may give trouble."""
    if rng.random() < 0.3:
        return "".join(map(chr, rng.choice([*range(1, 128), 0x85, 0x2028, 0x2029, 0x1F600], rng.integers(0, 8))))
    return str(rng.choice(TEXTS))


def some_json(rng: Random, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = rng.integers(0, 8 if depth < 4 else 6)
    if kind == 6:
        return [some_json(rng, depth + 1) for _ in range(rng.integers(0, 4))]
    if kind == 7:
        return {some_text(rng): some_json(rng, depth + 1) for _ in range(rng.integers(0, 4))}
    return [None, True, int(rng.integers(-(2**40), 2**40)), float(rng.normal()), some_text(rng), float("nan")][kind]


def damaged_json(rng: Random, text: str) -> str:
    """JSON with a value, a key or bytes of it replaced."""
    if rng.random() < 0.1:
        return "[" * 100_000 if rng.random() < 0.5 else '{"a":' * 100_000
    if rng.random() < 0.2:
        return damaged_bytes(rng, text.encode()).decode("utf-8", "replace")
    whole = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(whole)
    holder, key = places[rng.integers(len(places))]
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = some_json(rng)
    return json.dumps(whole)


def damaged_bytes(rng: Random, data: bytes) -> bytes:
    """Bytes cut, doubled, or changed in places."""
    array = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not array:
            break
        start = int(rng.integers(len(array)))
        stop = min(len(array), start + int(rng.integers(1, 40)))
        kind = rng.integers(3)
        if kind == 0:
            del array[start:stop]
        elif kind == 1:
            array[start:stop] = rng.integers(0, 256, stop - start, dtype=np.uint8).tobytes()
        else:
            array[start:start] = array[start:stop]
    return bytes(array)


class Bench:
    """Models, a store and an output to damage."""

    def __init__(self, folder: Path):
        from faults import write_ratings

        from pipelines.cli.main import main

        self.folder = folder
        write_ratings(folder / "ratings.csv")
        ratings = str(folder / "ratings.csv")
        quick = {
            "vae": ("-s", "epochs=1", "-s", "hidden=4", "-s", "latent=2"),
            "rbm": ("-s", "epochs=1", "-s", "hidden=4"),
        }
        quick["blend"] = ("-s", "members=edlae,item-knn")
        commands = [
            ["train", ratings, "-m", name, "-o", str(folder / name), "--no-track", *quick.get(name, ())]
            for name in MODELS
        ]
        commands += [["prepare", ratings, "--min-rating", "3", "-o", str(folder / "store")]]
        commands += [["score", str(folder / "ease"), ratings, "-n", "3", "-o", str(folder / "lists"), "--no-track"]]
        for words in commands:
            try:
                main(words, standalone_mode=False)
            except SystemExit as end:
                assert not end.code, words
        self.frame = pd.read_csv(ratings)

    def copy(self, name: str) -> Path:
        """A copy to damage."""
        place = self.folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(self.folder / name, place))


def model_folder(rng: Random, bench: Bench) -> None:
    """A model folder with damaged weights, ids or description, its checksums made right again."""
    from safetensors.torch import load_file, save_file

    from recsys.artifacts import load_model
    from recsys.system.storage import sha256

    place = bench.copy(str(rng.choice(MODELS)))
    kind = rng.integers(4)
    if kind == 0:
        state = load_file(place / "weights.safetensors")
        name = str(rng.choice(list(state)))
        state[name] = _damaged_tensor(rng, state[name])
        save_file(state, place / "weights.safetensors")
    elif kind == 1:
        table = pq.read_table(place / "items.parquet").to_pandas()
        column = rng.choice(table.columns)
        table[column] = (
            [some_json(rng, 9) for _ in range(len(table))] if rng.random() < 0.5 else table[column].iloc[::-1].values
        )
        try:
            pq.write_table(pa.Table.from_pandas(table.iloc[: rng.integers(0, len(table) + 1)]), place / "items.parquet")
        except (pa.ArrowException, ValueError, TypeError):
            return
    elif kind == 2:
        file = place / str(rng.choice(["weights.safetensors", "items.parquet"]))
        file.write_bytes(damaged_bytes(rng, file.read_bytes()))
    about = json.loads((place / "model.json").read_text())
    for name in about["files"]:
        about["files"][name] = sha256(place / name)
    text = json.dumps(about)
    (place / "model.json").write_text(damaged_json(rng, text) if kind == 3 else text)
    trained = load_model(place, "cpu")
    lists = trained.recommend(bench.frame.iloc[:40], 5)
    assert np.isfinite(lists["score"]).all()


def _damaged_tensor(rng: Random, tensor: Any) -> Any:
    import torch

    kind = rng.integers(6)
    if kind == 0:
        return tensor.reshape(-1)[: rng.integers(0, tensor.numel() + 1)].clone()
    if kind == 1:
        return tensor.to([torch.float64, torch.int32, torch.int64, torch.uint8, torch.float16][rng.integers(5)])
    if kind == 2:
        return tensor.unsqueeze(0).clone()
    changed = tensor.clone()
    if changed.numel():
        value = [50_000_000, -1, 2**31 - 1, float("nan"), float("inf"), -1e30][rng.integers(6)]
        if not changed.is_floating_point():
            value = int(np.nan_to_num(value, posinf=2**31 - 1, neginf=-1))
        changed.view(-1)[rng.integers(changed.numel())] = value if changed.is_floating_point() else int(value) % 2**31
    return changed


def store(rng: Random, bench: Bench) -> None:
    """A prepared store with damaged files, its checksums made right again."""
    from recsys.data.reading import read_interactions
    from recsys.models import create_model
    from recsys.system.storage import sha256

    place = bench.copy("store")
    manifest = json.loads((place / "store.json").read_text())
    name = str(rng.choice(list(manifest["files"])))
    file = place / name
    if name.endswith(".npy") and rng.random() < 0.7:
        array = np.load(file)
        if rng.random() < 0.5 and len(array):
            array[rng.integers(len(array))] = [2**31 - 1, -1, 999, 0][rng.integers(4)]
        elif rng.random() < 0.5:
            rng.shuffle(array)
        else:
            array = array.astype([np.int64, np.float64, np.int8][rng.integers(3)])[: rng.integers(0, len(array) + 1)]
        np.save(file, array)
    else:
        file.write_bytes(damaged_bytes(rng, file.read_bytes()))
    manifest["files"][name] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    text = json.dumps(manifest)
    (place / "store.json").write_text(damaged_json(rng, text) if rng.random() < 0.3 else text)
    interactions = read_interactions(place)
    create_model("popularity").fit(interactions.to_matrix().matrix)


def lists_description(rng: Random, bench: Bench) -> None:
    """plan.json or manifest.json of an output, damaged, then gone on with or compared with."""
    from recsys.batch.gates import require_finished

    place = bench.copy("lists")
    file = place / str(rng.choice(["plan.json", "manifest.json"]))
    file.write_text(damaged_json(rng, file.read_text()))
    require_finished(place)


def ratings_file(rng: Random, bench: Bench) -> None:
    """Any text or bytes as a ratings file."""
    from recsys.data.reading import read_interactions

    place = bench.folder / "any.csv"
    if rng.random() < 0.3:
        place.write_bytes(damaged_bytes(rng, (bench.folder / "ratings.csv").read_bytes()))
    else:
        separator = str(rng.choice([",", "\t", ";", "::", "|", " "]))
        header = ["user_id", "item_id", "rating", "timestamp"][: rng.integers(2, 5)]
        rows = [[some_text(rng) for _ in range(rng.integers(1, 6))] for _ in range(rng.integers(0, 8))]
        good = [
            [f"u{n}", f"i{n % 3}", str(n % 5 + 1), str(1_500_000_000 + n)][: len(header)]
            for n in range(rng.integers(0, 6))
        ]
        lines = ([header] if rng.random() < 0.7 else []) + (rows + good if rng.random() < 0.5 else good + rows)
        text = str(rng.choice(["\n", "\r\n", "\r"])).join(separator.join(line) for line in lines)
        place.write_bytes(text.encode(str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"])), "replace"))
    found = read_interactions(place)
    assert found.ledger.read == found.ledger.kept + sum(found.ledger.rejected.values())
    assert found.ledger.kept == len(found)


def reading_paths(rng: Random, bench: Bench) -> None:
    """Any text by the fast and by the slow path of reading: equal rows and rejects."""
    from reading_paths import LAYOUTS, compare_paths

    cells = ["1", "007", "u", "4,5", '"a"', "1e3", "2020-01-01", "", " ", "\u2028", "\x0b", "\ufeff", '"', "true"]
    lines = [str(rng.choice([",", "\t", ";", "::", " "])).join(rng.choice(cells, rng.integers(1, 6))) for _ in range(6)]
    data = str(rng.choice(["\n", "\r\n"])).join(lines).encode()
    data = damaged_bytes(rng, data) if rng.random() < 0.3 else data
    compare_paths(data, None if rng.random() < 0.5 else LAYOUTS[rng.integers(len(LAYOUTS))])


def frame(rng: Random, bench: Bench) -> None:
    """Any DataFrame as a request of histories."""
    import recsys
    from recsys.serving.pyfunc import recommend_frame

    rows = int(rng.integers(1, 6))
    names = rng.choice(["rating", "timestamp", "x"], rng.integers(0, 3), replace=False)
    names = [*(["user_id", "item_id"] if rng.random() < 0.9 else []), *map(str, names)]
    columns: dict[str, Any] = {
        name: [some_json(rng, 3) if rng.random() < 0.1 else f"i{n}" for n in range(rows)] for name in names
    }
    if rng.random() < 0.5:
        columns["rating"] = list(rng.integers(1, 6, rows))
    trained = recsys.load_model(bench.folder / str(rng.choice(["ease", "popularity", "biases"])), "cpu")
    found = recommend_frame(trained, pd.DataFrame(columns), int(rng.choice([1, 3, 10**9])))
    assert np.isfinite(found["score"]).all()


def small_tables(rng: Random, bench: Bench) -> None:
    """Any text as titles, ids or groups."""
    from recsys.data.reading import read_titles
    from recsys.data.reading.id_files import read_columns, read_ids

    place = bench.folder / "table.csv"
    text = "\n".join(",".join(some_text(rng) for _ in range(rng.integers(0, 4))) for _ in range(rng.integers(0, 6)))
    place.write_bytes(damaged_bytes(rng, text.encode()) if rng.random() < 0.3 else text.encode())
    reader = [read_titles, lambda path: read_ids(path, "item"), lambda path: read_columns(path, "item", 2)][
        rng.integers(3)
    ]
    reader(place)


def settings(rng: Random, bench: Bench) -> None:
    """Any settings file and flags on the command line."""
    from click.testing import CliRunner

    from pipelines.cli.main import main

    place = bench.folder / "settings.toml"
    keys = ["min_rating", "separator", "user_column", "encoding", "duplicates", "header", "x", "rejects", "on_bad_row"]
    lines = [f"{rng.choice(keys)} = {json.dumps(some_json(rng, 5))}" for _ in range(rng.integers(0, 3))]
    place.write_text("\n".join(lines).replace("null", '"null"').replace("NaN", "nan"), errors="replace")
    flags = [
        str(rng.choice(["--separator", "--encoding", "--min-rating", "--user-column", "--config"])),
        some_text(rng),
    ]
    words = ["check", str(bench.folder / "ratings.csv"), "--config", str(place), *(flags if rng.random() < 0.5 else ())]
    done = CliRunner().invoke(main, [word.replace("\0", "") for word in words])
    assert done.exit_code in (0, 1, 2), done.output
    assert "Traceback" not in done.output and "Internal error" not in done.output, done.output


KINDS = model_folder, store, lists_description, ratings_file, reading_paths, frame, small_tables, settings, http_request
TARGETS: dict[str, Callable[[Random, Bench], None]] = {function.__name__: function for function in KINDS}


def run(target: str, bench: Bench, trials: int, seed: int = 0, batch: int = 50) -> tuple[list[str], int]:
    """Run the trials of a target, some in each fork; what was found, a line each, and how many inputs were refused."""
    from faults import speak_into

    found, refused = [], 0
    for start in range(0, trials, batch):
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if child == 0:
                speak_into(said.fileno())
                os._exit(_trials(target, bench, range(start, min(start + batch, trials)), seed))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            text = said.read().decode("utf-8", "replace")
        if code < 0:
            found.append(f"{target}: a trial of {start}.. ended the process by signal {-code}: {text[-300:]}")
        found += [line for line in text.splitlines() if line.startswith("FOUND ")]
        refused += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("REFUSED "))
    return found, refused


def _trials(target: str, bench: Bench, numbers: range, seed: int) -> int:
    import warnings

    from recsys.errors import RecsysError

    warnings.simplefilter("ignore")
    os.chdir(bench.folder)  # where a made-up file name does no harm
    refused = 0
    for number in numbers:
        try:
            TARGETS[target](np.random.default_rng([seed, number]), bench)
        except RecsysError:
            refused += 1
        except Exception as error:
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else ""
            print(f"FOUND {target} trial {number}: {type(error).__name__} at {where}: {str(error)[:300]!r}", flush=True)
    print(f"REFUSED {refused}")
    return 0


def main() -> None:
    """Run every target and print what was found."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="trials of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=list(TARGETS), action="append")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        everything = {name: run(name, bench, asked.trials, asked.seed) for name in asked.target or TARGETS}
    for name, (found, refused) in everything.items():
        print("\n".join([f"{name}: {asked.trials:,} trials, {refused:,} refused, {len(found)} findings", *found[:20]]))
    sys.exit(any(found for found, _ in everything.values()))


if __name__ == "__main__":
    main()
