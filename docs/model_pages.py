"""The reference of the models: what each is, its settings, its source and what was measured, from the code."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import tokenize
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from markdown_text import first_sentence, first_table, linked, summary, table

from recsys.models import MODELS, Recommender
from recsys.models.search_space import Categorical, Range, search_space

ROOT = Path(__file__).parents[1]

# What our models are called in tables of published figures.
PUBLISHED = {
    "popularity": ("TopPop", "PopRec"),
    "item-knn": ("ItemKNN",),
    "vae": ("Mult-VAE",),
    "ease": ("EASE",),
    "ials": ("iALS",),
    "svd": ("PureSVD",),
    "bspm": ("BSPM-EM",),
    "chebycf": ("ChebyCF",),
    "autorec": ("I-AutoRec", "U-AutoRec"),
    "biased-mf": ("BiasedMF",),
    "rating-rbm": ("U-RBM",),
    "kernel-ae": ("KernelNet",),
}

# Settings that mean the same in every model and carry no comment there.
COMMON_SETTINGS = {
    "epochs": "Passes over the training data, at most: validation may stop earlier.",
    "learning_rate": "Step size of the optimizer.",
    "batch_size": "Users in a step.",
    "iterations": "Sweeps of the algorithm.",
    "factors": "Number of latent factors.",
    "hidden": "Width of the hidden layers.",
    "latent": "Width of the code.",
    "l2": "Strength of the L2 regularization.",
}


def models_page() -> str:
    """All models, by task and family."""
    parts = ["# Models", "Made from the code: each name leads to its settings, its source and what was measured."]
    for task, title in (("ranking", "## Models of rankings"), ("rating", "## Models of ratings")):
        rows = [
            (
                f"[`{name}`]({name}.md)",
                model.family,
                first_sentence(model),
                "no" if model.needs_training_users else "yes",
            )
            for name, model in MODELS.items()
            if model.task == task
        ]
        parts += [title, table(("name", "kind", "what it is", "new users"), rows)]
    return "\n\n".join(parts)


def family_table() -> str:
    """Names of the models of each family and task."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, model in MODELS.items():
        kinds.setdefault((model.task, model.family), []).append(f"[`{name}`](../reference/models/{name}.md)")
    rows = [(task, family, ", ".join(names)) for (task, family), names in kinds.items()]
    return table(("task", "kind", "models"), rows)


def model_page(name: str, model: type[Recommender], tables: Mapping[str, tuple[str, str]]) -> str:
    """What a model is, its settings and its figures."""
    module = importlib.import_module(model.__module__)
    facts = [
        ("task", "predicts ratings" if model.task == "rating" else "ranks items"),
        ("kind", model.family),
        ("new users", "no: it knows its training users only" if model.needs_training_users else "yes"),
        ("seed", "changes the result" if model.is_random else "changes nothing"),
        ("class", f"[`{model.__name__}`][{model.__module__}.{model.__name__}]"),
    ]
    parts = [
        f"# `{name}`",
        linked(summary(model)),
        f'<div class="facts" markdown>\n\n{table(("", ""), facts)}\n\n</div>',
        f"```bash\nrecsys train RATINGS -m {name} -o model\n```",
        "## Settings",
        settings_table(model),
        presets_table(model),
        "## Source",
        linked(inspect.cleandoc(module.__doc__ or "")),
        "## Measured",
        measured(name, tables),
    ]
    return "\n\n".join(part for part in parts if part)


def settings_table(model: type[Recommender]) -> str:
    """Every setting with its default, the range that `recsys tune` searches, and its meaning."""
    fields = dataclasses.fields(model.Config)
    if not fields:
        return "None."
    spaces, meanings = search_space(model.Config), setting_meanings(model.Config)
    rows = [
        (f"`{field.name}`", default_of(field), searched(spaces.get(field.name)), meanings.get(field.name, ""))
        for field in fields
    ]
    return f'<div class="settings" markdown>\n\n{table(("setting", "default", "searched", "meaning"), rows)}\n\n</div>'


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default of a setting as code; nothing for one that is made anew for every model."""
    return "" if field.default in (dataclasses.MISSING, "") else f"`{field.default}`"


def searched(space: Range | Categorical | None) -> str:
    """A search space in words."""
    if space is None:
        return ""
    if isinstance(space, Range):
        return f"{space.low:g} to {space.high:g}{', logarithmic' if space.log else ''}"
    return ", ".join(f"`{option}`" for option in space.options)


def setting_meanings(config: type[Any]) -> dict[str, str]:
    """The comment beside or above each field of a Config and of what it inherits from."""
    meanings = dict(COMMON_SETTINGS)
    for owner in reversed([kind for kind in config.__mro__ if dataclasses.is_dataclass(kind)]):
        source = inspect.getsource(owner)
        comments, lines = comments_of(source), source.splitlines()
        (definition,) = ast.parse(inspect.cleandoc(source)).body
        assert isinstance(definition, ast.ClassDef)
        for node in definition.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                above, number = [], node.lineno - 1
                while number in comments and lines[number - 1].lstrip().startswith("#"):
                    above.insert(0, comments[number])
                    number -= 1
                text = comments.get(node.end_lineno or 0) or " ".join(above)
                if text:
                    meanings[node.target.id] = text if re.match(r"\w+:", text) else text[0].upper() + text[1:]
    return meanings


def comments_of(source: str) -> dict[int, str]:
    """Comments of Python source by line."""
    tokens = tokenize.generate_tokens(StringIO(inspect.cleandoc(source)).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def presets_table(model: type[Recommender]) -> str:
    """Settings of publications."""
    if not model.presets:
        return ""
    rows = [
        (f"`-s preset={name}`", ", ".join(f"`{key}={value}`" for key, value in settings.items()))
        for name, settings in model.presets.items()
    ]
    return table(("preset", "settings"), rows)


def measured(name: str, tables: Mapping[str, tuple[str, str]]) -> str:
    """What the benchmarks measured of a model, beside the published figure of the same model where there is one."""
    parts = []
    for file, (page, title) in tables.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        head, rule, *rows = first_table(text)
        ours = [row for row in rows if re.match(rf"\| `{name}[`,]", row)]
        if ours:
            theirs = [row for row in rows if row.split("|")[1].strip() in PUBLISHED.get(name, ())]
            theirs = [row.replace("| ", "| published: ", 1) for row in theirs]
            parts.append("\n".join([f"[{title}](../../{page})\n", head, rule, *ours, *theirs]))
    return "\n\n".join(parts) or "Not in the tables of this version."
