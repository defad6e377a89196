"""Groups of options that several jobs share, and what each becomes in the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recsys import splitting
from recsys.errors import ConfigError
from recsys.interactions import Interactions
from recsys.places import Place
from recsys.processes import ALONE, Group
from recsys.reading import ReadingOptions, read_interactions
from recsys.splitting import Split
from recsys.tracking import Tracker, open_tracker

from .options import setting


@dataclass(frozen=True)
class SplitOptions:
    """Who is held out."""

    protocol: Literal["strong", "weak", "leave-one-out", "temporal", "given"] = setting("strong", "Who is held out.")
    held_out: float = setting(0.1, "Share of users (strong) or of rows (weak, temporal) in each held-out part.")
    test: Place | None = setting(None, "Test file of a published division (protocol given).")
    validation: Place | None = setting(None, "Validation file; it belongs to the history at test time.")

    def __post_init__(self) -> None:
        if self.validation is not None and self.test is None:
            raise ConfigError("Expected --test FILE beside --validation FILE, found only the latter.")
        if self.protocol == "given" and self.test is None:
            raise ConfigError("Expected --test FILE for the protocol given, found none.")

    def split(self, interactions: Interactions, reading: ReadingOptions, seed: int) -> Split:
        """The interactions divided as asked; `--test FILE` means the given protocol."""
        if self.test is not None:
            validation = (
                None if self.validation is None else read_interactions(self.validation, reading.beside("validation"))
            )
            test = read_interactions(self.test, reading.beside("test"))
            return splitting.given(interactions, test, validation)
        if self.protocol == "temporal":
            return splitting.temporal(interactions, share=self.held_out)
        if self.protocol == "leave-one-out":
            return splitting.leave_one_out(interactions, seed=seed)
        return splitting.PROTOCOLS[self.protocol](interactions, share=self.held_out, seed=seed)


@dataclass(frozen=True)
class FittingOptions:
    """How models are fitted."""

    metric: str = setting("ndcg@100", "Validation metric: it stops the epochs and ranks the models.")
    patience: int = setting(10, "Epochs without a better validation value before training stops.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    precision: Literal["fp32", "bf16"] = setting("fp32", "bf16 is faster where the chip has it.")


@dataclass(frozen=True)
class TrackingOptions:
    """Where runs are kept."""

    track: bool = setting(True, "Track the run in MLflow (MLFLOW_TRACKING_URI, else sqlite:///mlflow.db).")
    experiment: str = setting("recsys", "MLflow experiment.")

    def open(self, group: Group = ALONE) -> Tracker:
        """The tracker asked for; of several processes only the main one tracks."""
        return open_tracker(self.track and group.is_main, self.experiment)


def comma_list(texts: Sequence[str] | str) -> list[str]:
    """`"a,b"` or `("a,b", "c")` -> `["a", "b", "c"]`, each once, blanks left out."""
    parts = [part.strip() for text in ([texts] if isinstance(texts, str) else texts) for part in text.split(",")]
    return list(dict.fromkeys(part for part in parts if part))
