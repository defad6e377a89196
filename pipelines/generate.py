"""`recsys generate`: draw made-up users from a variational autoencoder, and report how they compare with real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import click
from scipy.sparse import csr_matrix

from recsys import splitting
from recsys.artifacts import load_model
from recsys.batch.generated_users import write_users
from recsys.batch.predictions import file_format
from recsys.data.interactions import Interactions
from recsys.data.matrix import UserItemMatrix, with_items
from recsys.data.reading import ReadingOptions
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.evaluation.generated import (
    Likeness,
    Membership,
    Usefulness,
    check_membership,
    compare_training,
    compare_users,
)
from recsys.evaluation.tasks import TASKS
from recsys.latent.decoders import check_generative
from recsys.latent.generate import Source
from recsys.models import create_model
from recsys.models.trained import TrainedModel
from recsys.reporting.generated_page import GeneratedFacts, findings, render_generated
from recsys.splitting.holdout import Split
from recsys.system.files import new_file, write_text
from recsys.system.packages import versions
from recsys.system.storage import Location
from recsys.system.text import plural
from recsys.training.context import TrainingContext

from .cli.models import ModelType
from .cli.options import SEED, LocationType, options_from, setting
from .cli.output import as_json, note, print_json, say, wrapped
from .cli.progress import activity, watch
from .cli.reading import read_histories

LARGEST = 20_000  # items, for ease: it holds a matrix of items x items
UNSEEN = "The generating model has not seen them."
SEEN = "The generating model may have been trained on them, so the figure of generated users may be too high."


@dataclass(frozen=True)
class GenerateJob:
    """Which model, like whom, how many users, and where they go."""

    model: Location
    ratings: tuple[Location, ...]
    users: int = setting(1000, "Number of users to generate.")
    output: Path = setting(Path("generated.csv"), "File to write: .csv or .parquet.", "--output", "-o")
    codes: Literal["fitted", "prior"] = setting(
        "fitted", "Draw codes from the distribution of real ones, or from the prior of a vae, which is less like them."
    )
    report: bool = setting(True, "Write a report beside the file: the same name, .html.")
    learner: str | None = setting(
        None,
        "Model to train on generated and on real users for the report; by default ease (sparse-ease beyond "
        f"{LARGEST:,} items), for ratings biased-mf.",
    )
    overwrite: bool = setting(False, "Replace existing files.")
    seed: int = setting(0, "Seed; the same seed gives the same bytes.", kind=SEED)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        file_format(self.output)
        if self.users < 1:
            raise ConfigError(f"Expected users of at least 1, found {self.users}.")

    @property
    def page(self) -> Path:
        """The report."""
        return self.output.with_suffix(".html")


@dataclass(frozen=True)
class Generated:
    """The file, its users and rows, the report, the findings in sentences and in figures, the account of the ratings.

    likeness, membership and usefulness are None without a report, the last also where no user could be held out.
    """

    file: Path
    users: int
    rows: int
    report: Path | None
    findings: Sequence[str]
    likeness: Likeness | None
    membership: Membership | None
    usefulness: Usefulness | None
    ledger: str


def run(job: GenerateJob) -> Generated:
    """Draw the users. What can be refused is refused before the data are read."""
    for file in (job.output, *([job.page] if job.report else [])):
        if file.exists() and not job.overwrite:
            raise ArtifactError(f"{file} already exists: choose another place, or set overwrite.")
    saved = load_model(job.model, job.device)
    check_generative(saved.model)
    learner = find_learner(job, saved)
    interactions = read_histories(saved, job.ratings, job.reading)
    split, seen = hold_out(saved, interactions, job.seed)
    real = with_items(split.train, saved.items)
    with activity("fitting the distribution of codes"):
        source = (Source.fitted if job.codes == "fitted" else Source.prior)(saved.model, real)
    with new_file(job.output) as file:
        blocks = watch(source.draw(job.users, job.seed), source.count_blocks(job.users), "generating", "block")
        written = write_users(file, file_format(job.output), blocks, saved.items, TASKS[saved.model.task].ratings)
    ledger = interactions.ledger.line()
    if not job.report:
        return Generated(job.output, written.users, written.rows, None, (), None, None, None, ledger)
    with activity("comparing with real users"):
        likeness, membership = compare_users(real, written.first), check_membership(real, written.first, job.seed)
    usefulness = None if split.validation is None else learn(learner, job.seed, saved, split, written.first)
    about = {
        "model": saved.model.name,
        "codes": job.codes,
        "seed": job.seed,
        "rows": written.rows,
        "real users": ledger,
    }
    facts = GeneratedFacts(
        written.users, written.first.shape[0], real.shape[0], likeness, membership, usefulness, about, seen
    )
    write_text(job.page, render_generated(facts, versions().get("recsys", "")))
    return Generated(
        job.output, written.users, written.rows, job.page, findings(facts), likeness, membership, usefulness, ledger
    )


def find_learner(job: GenerateJob, saved: TrainedModel) -> str:
    """The model to train for the report: one of the same task, for new users."""
    task, default = saved.model.task, "ease" if len(saved.items) <= LARGEST else "sparse-ease"
    learner = job.learner or ("biased-mf" if task == "rating" else default)
    kind = type(create_model(learner))
    if kind.task != task or kind.needs_training_users:
        raise ConfigError(f"Expected a learner of the {task} task that takes new users, found {learner}.")
    return learner


def learn(learner: str, seed: int, saved: TrainedModel, split: Split, generated: csr_matrix) -> Usefulness:
    """Train a model on generated and on real users, and test both on the held-out ones."""
    assert split.validation is not None
    with activity(f"training {learner} on generated and on real users"):
        first = with_items(UserItemMatrix(generated, split.train.users, saved.items), split.train.items)
        metric = TASKS[saved.model.task].metric
        return compare_training(learner, split.train.matrix, first, split.validation, metric, TrainingContext(seed))


def hold_out(saved: TrainedModel, interactions: Interactions, seed: int) -> tuple[Split, str]:
    """Divide the users: like whom to generate, and whom to test on; those held out from the training, if known.

    The second value says whether the model has seen the latter. Of too few users none is held out.
    """
    about, data = saved.about.get("split", {}), saved.about.get("data", {})
    share, trained = about.get("held_out"), saved.about.get("seed")
    again = data.get("fingerprint") == interactions.fingerprint() and about.get("protocol") == "strong"
    ratings = saved.model.task == "rating"
    if again and isinstance(share, float) and isinstance(trained, int) and not about.get("refit"):
        return splitting.strong(interactions, share=share, seed=trained, test=False, ratings=ratings), UNSEEN
    try:
        return splitting.strong(interactions, seed=seed, test=False, ratings=ratings), SEEN
    except DataError as error:
        note(f"Nothing is trained on the generated users, as no user is held out to test on: {error}")
        return splitting.everybody(interactions, ratings), ""


@click.command("generate")
@click.argument("model", type=ModelType())
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(GenerateJob)
def command(job: GenerateJob) -> None:
    """Generate users who take items as those of RATINGS do, with the model directory MODEL, a vae or recvae.

    They do not exist: for load tests, examples, and sharing data without people in it. The report beside the file says
    how like real users they are, and whether any is a copy of one.
    """
    found = run(job)
    if as_json():
        print_json(asdict(found))
        return
    say(found.ledger)
    say(f"{plural(found.users, 'user')} with {plural(found.rows, 'interaction')} generated: {found.file}")
    for sentence in found.findings:
        say(f"\n{wrapped(sentence)}")
    if found.report is not None:
        say(f"\nReport: {found.report}")
