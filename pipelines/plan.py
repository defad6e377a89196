"""`recsys plan`: estimate what training and scoring will need, on one machine or on many."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import click

from recsys import capacity
from recsys.capacity import Speed, TrainingEstimate, Workload
from recsys.system.text import plural

from .cli.options import options_from, setting
from .cli.output import WIDTH, as_json, print_json, say, table


@dataclass(frozen=True)
class PlanJob:
    """The size of the data, of the model and of the machines."""

    users: float = setting(100_000, "Users; also written as 1e9.")
    items: float = setting(20_000, "Items.")
    interactions: float = setting(10_000_000, "Rows of ratings.")
    machines: int = setting(1, "Machines or GPUs that share the work.")
    gpu: bool = setting(False, "Use GPUs such as the measured one.")
    memory: float = setting(16, "Memory of a machine or GPU, in GB.")
    network: float = setting(10, "Network between machines, in Gbit/s.")
    speedup: float = setting(1, "Speed of a machine relative to the measured one.")
    hidden: int = setting(600, "Hidden width of the VAE.")
    latent: int = setting(200, "Latent width of the VAE.")
    batch_size: int = setting(500, "Users in a training step, over all machines.")
    precision: Literal["fp32", "bf16"] = setting("fp32", "bf16 is faster where the chip has it.")
    n: int = setting(100, "Length of a list.")

    def workload(self) -> Workload:
        """The workload in bytes and bytes per second."""
        return Workload(
            self.users,
            self.items,
            self.interactions,
            machines=self.machines,
            memory=self.memory * 1e9,
            network=self.network * 1e9 / 8,
            hidden=self.hidden,
            latent=self.latent,
            batch_size=self.batch_size,
            precision=self.precision,
            n=self.n,
        )


@dataclass(frozen=True)
class Plan:
    """The estimate: the ways to train, the recommended one, and the cost of the lists."""

    workload: Workload
    speed: Speed
    ways: list[TrainingEstimate]
    recommended: TrainingEstimate | None
    lists_seconds: float
    lists_bytes: float


def run(job: PlanJob) -> Plan:
    """Estimate memory, time and network of each way to train."""
    work = job.workload()
    speed = capacity.read_speed("cuda" if job.gpu else "cpu").scaled_by(job.speedup)
    ways = list(capacity.training_estimates(work, speed))
    best = capacity.recommended(work, ways)
    return Plan(work, speed, ways, best, capacity.lists_seconds(work, speed), capacity.lists_bytes(work))


@click.command("plan")
@options_from(PlanJob)
def command(job: PlanJob) -> None:
    """Estimate what training and scoring will need: memory, time, network, and which model fits."""
    plan = run(job)
    print_json(asdict(plan)) if as_json() else say("\n".join(_lines(plan)))


def _lines(plan: Plan) -> Iterator[str]:
    work = plan.workload
    yield f"{work.users:,.0f} users, {work.items:,.0f} items, {work.interactions:,.0f} interactions"
    yield f"{work.machines} x {plan.speed.machine} (measured {plan.speed.date}), {_bytes(work.memory)} each"
    yield ""
    header = ("training", "memory", "step", "epoch", "sent/step", "machines", "fits")
    yield table([_row(way, work) for way in plan.ways], header)
    yield ""
    for text in (*_advice(plan), f"Lists: {_lists(plan)}"):
        yield textwrap.fill(text, WIDTH)
    yield f"\n{capacity.FORMULA}"


def _row(way: TrainingEstimate, work: Workload) -> tuple[str, ...]:
    step = _time(way.step_seconds) if way.epochs else ""
    whole = _time(way.seconds) + ("" if way.epochs else " total")
    sent, machines = _bytes(way.sent) if way.sent else "", str(way.machines)
    return way.name, _bytes(way.bytes), step, whole, sent, machines, "yes" if way.bytes <= work.memory else "no"


def _advice(plan: Plan) -> Iterator[str]:
    work, best = plan.workload, plan.recommended
    if work.training_share < 1:
        yield (
            f"A matrix holds at most {capacity.MATRIX_LIMIT:,} interactions: train on a sample of "
            f"{work.training_share:.1%} of the users (the times above are for this sample) and score all users, in "
            "files of at most that many rows: a model also scores users it was not trained on."
        )
    if best is None:
        least = min((way for way in plan.ways if way.epochs), key=lambda way: way.bytes)
        yield (
            f"No network fits {_bytes(work.memory)}: the smallest, {least.name}, needs {_bytes(least.bytes)}. "
            "Use a narrower network (--hidden), fewer items (--min-item-users when reading), or more memory."
        )
    else:
        yield f"Recommended: {best.name}, {_time(best.seconds)} for an epoch; 20 to 100 epochs are usual."
    if best is not None and best.machines < work.machines:
        yield f"It trains on {plural(best.machines, 'machine')}; the others can score users."


def _lists(plan: Plan) -> str:
    work = plan.workload
    return (
        f"top {work.n} of every user in {_time(plan.lists_seconds)} on {plural(work.machines, 'machine')}, "
        f"{_bytes(plan.lists_bytes)} before compression."
    )


def _bytes(count: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def _time(seconds: float) -> str:
    for unit, size in (("years", 365.25 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds * 1000:,.0f} ms"
