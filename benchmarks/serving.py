"""How fast `recsys serve` answers, beside a bare FastAPI route and `mlflow models serve`; and reloads under load.

    python benchmarks/serving.py [--items 3700,50000,1000000] [--seconds 4] [--mlflow-up-to 50000]

Data are generated with a popularity tail; the model is `svd` with 64 numbers an item. Each server runs by itself and is
asked for lists of 10 of its known users (`mlflow models serve` is sent the user's history, since it knows no users)
over connections that stay open. The clients take part of the same cores. `bare FastAPI` is one route that multiplies
the user's vector by those of the items with NumPy and sorts: no ids, limits, metrics, or checks.

Then one service is asked 10,000 times and more while CURRENT names another model 20 times; and the page of `--ui` is
opened in headless Chromium, on the sample.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # tests: the driven browser
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # mlflow starts uvicorn by name

import numpy as np
import pandas as pd

SIZE, KNOWN, HISTORY, LENGTH = 64, 2_000, 40, 10
CLIENTS = (1, 8, 64)
RELOADS, REQUESTS = 20, 10_000

BARE = """
import sys
import numpy as np
from fastapi import FastAPI

app = FastAPI()
items, codes = np.load(sys.argv[1] + "/items.npy"), np.load(sys.argv[1] + "/codes.npy")

@app.get("/recommend/{user}")
async def recommend(user: int, n: int = 10):
    scores = items @ codes[user]
    best = np.argpartition(-scores, n)[:n]
    best = best[np.argsort(-scores[best])]
    return {"items": [{"item_id": int(item), "score": float(scores[item])} for item in best]}

if __name__ == "__main__":
    import uvicorn
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
"""

Request = Callable[[int], bytes]  # what is sent for a user


@dataclass(frozen=True)
class Measured:
    """What clients saw.

    Attributes
    ----------
    seconds : ndarray
        Of each answer.
    failed : int
        Answers with another status than 200.
    rate : float
        Answers a second.
    """

    seconds: np.ndarray
    failed: int
    rate: float


def prepare(folder: Path, items: int, seed: int = 0) -> np.ndarray:
    """Write ratings of known users, two fitted models and the arrays of the bare route; return the histories."""
    import recsys
    from recsys.training.context import TrainingContext

    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(10, items + 10) ** 0.9
    users = max(KNOWN, items // 20)
    cells = rng.choice(items, (users, HISTORY), p=popularity / popularity.sum())
    table = pd.DataFrame({"user_id": np.repeat(np.arange(users), HISTORY), "item_id": cells.ravel()}).drop_duplicates()
    every = pd.DataFrame({"user_id": np.arange(items) % users, "item_id": np.arange(items)})  # so that each is known
    both = pd.concat([table, every]).drop_duplicates()
    for name, one in (("a", 1), ("b", 2)):
        fitted = recsys.fit(both, "svd", {"factors": SIZE}, held_out=0.0, context=TrainingContext(seed=one))
        recsys.save_model(folder / name, fitted)
    known = table[table.user_id < KNOWN]
    known.to_csv(folder / "known.csv", index=False)
    np.save(folder / "items.npy", rng.normal(size=(items, SIZE)).astype(np.float32))
    np.save(folder / "codes.npy", rng.normal(size=(KNOWN, SIZE)).astype(np.float32))
    (folder / "bare.py").write_text(BARE, encoding="utf-8")
    return cells[:KNOWN]


@contextlib.contextmanager
def server(words: Sequence[str], port: int, ready: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server from when it answers `ready` until the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5).read()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"Expected a server, found: {log.read_text()[-2000:]}") from None
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])


async def one_client(port: int, users: Iterator[int], request: Request, goes_on: Callable[[], bool]) -> list[float]:
    """Ask, read, ask again over one connection; seconds of each answer, below zero where it failed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seconds = []
    while goes_on():
        asked = request(next(users))
        started = time.perf_counter()
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None, head
        await reader.readexactly(int(length[1]))
        passed = time.perf_counter() - started
        seconds.append(passed if head.startswith(b"HTTP/1.1 200") else -passed)
    writer.close()
    return seconds


def ask(port: int, clients: int, request: Request, goes_on: Callable[[], bool]) -> Measured:
    """Let clients ask side by side as long as `goes_on()`."""
    rng = np.random.default_rng(1)
    users = iter(lambda: int(rng.integers(KNOWN)), -1)

    async def everybody() -> list[list[float]]:
        return await asyncio.gather(*(one_client(port, users, request, goes_on) for _ in range(clients)))

    started = time.perf_counter()
    found = np.concatenate(asyncio.run(everybody()))
    return Measured(np.abs(found), int((found < 0).sum()), len(found) / (time.perf_counter() - started))


def for_time(port: int, clients: int, request: Request, seconds: float) -> Measured:
    """Measure for some seconds, after a short warm-up."""
    for length in (min(1.0, seconds), seconds):
        ends = time.perf_counter() + length
        found = ask(port, clients, request, lambda ends=ends: time.perf_counter() < ends)
    return found


def get(user: int) -> bytes:
    """The request for the list of a known user."""
    return f"GET /recommend/{user}?n={LENGTH} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def invocation(cells: np.ndarray) -> Request:
    """The request of `mlflow models serve` for the same list."""

    def request(user: int) -> bytes:
        rows = [[str(user), int(item)] for item in sorted(set(cells[user].tolist()))]
        body = json.dumps(
            {"dataframe_split": {"columns": ["user_id", "item_id"], "data": rows}, "params": {"n": LENGTH}}
        )
        head = f"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        return f"{head}\r\n\r\n{body}".encode()

    return request


def logged(folder: Path) -> str:
    """Save the model as MLflow does; the path of its folder."""
    import mlflow

    from recsys.serving.pyfunc import pyfunc_arguments

    mlflow.pyfunc.save_model(folder / "pyfunc", **pyfunc_arguments(folder / "a"))
    return str(folder / "pyfunc")


def compare(folder: Path, items: int, seconds: float, with_mlflow: bool) -> list[str]:
    """Rows of the table for one catalog."""
    cells = prepare(folder, items)
    python, rows = sys.executable, []

    def measure(name: str, words: Sequence[str], port: int, ready: str, request: Request) -> None:
        with server(words, port, ready, folder / "log") as process:
            for clients in CLIENTS:
                found = for_time(port, clients, request, seconds)
                median, slow = 1000 * np.quantile(found.seconds, [0.5, 0.99])
                row = f"| {items:,} | {name} | {clients} | {median:,.1f} | {slow:,.1f} | {found.rate:,.0f} |"
                rows.append(f"{row} {found.failed} | {memory(process.pid):,.0f} |")
                print(rows[-1], flush=True)

    port = free_port()
    words = [python, "-m", "pipelines.cli", "serve", str(folder / "a"), "--ratings", str(folder / "known.csv")]
    measure("recsys serve", [*words, "--port", str(port)], port, "/v2/health/ready", get)
    port = free_port()
    measure("bare FastAPI", [python, str(folder / "bare.py"), str(folder), str(port)], port, "/recommend/0", get)
    if with_mlflow:
        port, address = free_port(), logged(folder)
        words = [python, "-m", "mlflow", "models", "serve", "-m", address, "-p", str(port), "--env-manager", "local"]
        measure("mlflow models serve", words, port, "/health", invocation(cells))
    return rows


def memory(process: int) -> float:
    """Resident memory in MB."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


def reload_under_load(folder: Path) -> str:
    """Name another model in CURRENT again and again while clients ask."""
    place, port = folder / "published", free_port()
    place.mkdir()
    for name in ("a", "b"):
        (folder / name).rename(place / name)
    (place / "CURRENT").write_text("a", encoding="utf-8")
    words = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "serve",
        str(place),
        "--reload",
        "--ratings",
        str(folder / "known.csv"),
    ]

    def reloads() -> int:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        return sum(
            int(float(n)) for n in re.findall(r'^recsys_reloads_total\{result="loaded"\} (\S+)', text, re.MULTILINE)
        )

    with server([*words, "--port", str(port)], port, "/v2/health/ready", folder / "log") as process:
        for_time(port, 8, get, 2)
        before, asked, failed, turn = memory(process.pid), 0, 0, 0
        while turn < RELOADS or asked < REQUESTS:
            turn += 1
            (place / "next").write_text("ab"[turn % 2], encoding="utf-8")
            (place / "next").replace(place / "CURRENT")
            ends = time.perf_counter() + 60

            def goes_on(wanted: int = turn, ends: float = ends, checked: list[float] = [0.0]) -> bool:  # noqa: B006
                now = time.perf_counter()
                if now - checked[0] < 0.25:
                    return True
                checked[0] = now
                return now < ends and reloads() < wanted

            found = ask(port, 8, get, goes_on)
            asked, failed = asked + len(found.seconds), failed + found.failed
        done, after = reloads(), memory(process.pid)
    return (
        f"{asked:,} requests of 8 clients during {done} reloads: {failed} failed; memory {before:,.0f} MB before, "
        f"{after:,.0f} MB after."
    )


def open_page(folder: Path) -> str:
    """How long the page of the sample takes to its first list, and which hosts it asks."""
    from driven_browser import drive

    import recsys

    sample, port = ROOT / "data" / "sample", free_port()
    recsys.save_model(folder / "sample", recsys.fit(sample / "ratings.csv", "edlae", held_out=0.0))
    words = [sys.executable, "-m", "pipelines.cli", "serve", str(folder / "sample"), "--ui", "--port", str(port)]
    words += ["--ratings", str(sample / "ratings.csv"), "--titles", str(sample / "items.csv")]
    listed = "document.querySelectorAll('#list .title').length"

    async def script(page: Any) -> list[float]:
        seconds = []
        for _ in range(5):
            await page.call("Page.navigate", url="about:blank")
            await page.until("document.getElementById('list') === null")
            started = time.perf_counter()
            await page.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
            await page.until(listed)
            seconds.append(time.perf_counter() - started)
        return seconds

    with server(words, port, "/v2/health/ready", folder / "log"):
        seconds, hosts = drive("about:blank", script)
    others = hosts - {f"127.0.0.1:{port}"}
    return f"Page of the sample: first list after {max(seconds):.2f} s (slowest of 5); {len(others)} other hosts asked."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="3700,50000,1000000")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--mlflow-up-to", type=int, default=50_000, help="largest catalog for mlflow models serve")
    asked = parser.parse_args()
    from recsys.system.hardware import describe_machine

    machine = describe_machine()
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| items | server | clients | p50 ms | p99 ms | requests/s | failed | MB |\n| ---: | --- |" + " ---: |" * 6)
    for items in map(int, asked.items.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), items, asked.seconds, items <= asked.mlflow_up_to)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), 3_700)
        print(f"\n{reload_under_load(Path(folder))}\n{open_page(Path(folder))}")


if __name__ == "__main__":
    main()
