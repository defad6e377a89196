"""Pages of the site that are made from the code: commands, models and the API; and copies of pages outside docs/.

A hook of MkDocs: pages are made while the site is built, nothing is written into the repository. In a page of docs/ a
comment stands for what is taken from elsewhere: `drawing: strong` for the drawing in that docstring, `table: FILE` for
the first table of a file, `formulas` for the definitions of the metrics.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import posixpath
import re
import tokenize
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.structure.files import File

import recsys
from pipelines.cli.main import COMMANDS, main
from recsys import splitting
from recsys.data.reading import ReadingOptions
from recsys.models import MODELS, Recommender
from recsys.models.search_space import Categorical, Range, search_space

ROOT = Path(__file__).parents[1]

# Pages of the repository that the site shows as well: file -> page, title.
COPIES = {
    "benchmarks/README.md": ("results/benchmarks.md", "Benchmarks"),
    "benchmarks/accuracy/README.md": ("results/accuracy.md", "Accuracy: how it is measured"),
    "benchmarks/accuracy/results/ml1m_random.md": ("results/ml1m-random.md", "MovieLens-1M, random 80/10/10"),
    "benchmarks/accuracy/results/ml1m_strong.md": ("results/ml1m-strong.md", "MovieLens-1M, held-out users"),
    "benchmarks/accuracy/results/ml1m_leave_one_out.md": ("results/ml1m-leave-one-out.md", "MovieLens-1M, last item"),
    "benchmarks/accuracy/results/gowalla.md": ("results/gowalla.md", "Gowalla"),
    "benchmarks/ratings/README.md": ("results/ratings.md", "Ratings: how they are measured"),
    "benchmarks/ratings/results/ml100k.md": ("results/ratings-ml100k.md", "Ratings, MovieLens-100K"),
    "benchmarks/ratings/results/ml1m.md": ("results/ratings-ml1m.md", "Ratings, MovieLens-1M"),
    "benchmarks/ratings/results/jester.md": ("results/ratings-jester.md", "Ratings, Jester"),
    "data/README.md": ("data.md", "Data"),
    "CHANGELOG.md": ("changelog.md", "Changelog"),
    "CONTRIBUTING.md": ("contributing.md", "Contributing"),
    "SECURITY.md": ("security-policy.md", "Security policy"),
}
RESULTS = [name for name in COPIES if "/results/" in name]

# What our models are called in tables of published figures.
PUBLISHED = {
    "popularity": ("TopPop", "PopRec"),
    "item-knn": ("ItemKNN",),
    "vae": ("Mult-VAE",),
    "ease": ("EASE",),
    "ials": ("iALS",),
    "svd": ("PureSVD",),
    "bspm": ("BSPM-EM",),
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

PACKAGES = {
    "system": "The machine: hardware, memory, threads, storage, atomic files.",
    "data": "Interactions, ids, the user-item matrix, reading, prepared stores.",
    "data.reading": "Ratings files of any common format, with an account of every row.",
    "splitting": "Who and what is held out.",
    "inference": "Top-n lists and predicted pairs.",
    "training": "The gradient loop, batches, several processes.",
    "models": "What all models share, and those of no family.",
    "models.autoencoders": "Deep autoencoders for rankings.",
    "models.linear": "Linear autoencoders, neighbors and graph filters.",
    "models.factorization": "Matrix factorization.",
    "models.ratings": "Models that predict ratings.",
    "evaluation": "Metrics, confidence intervals, comparison.",
    "tuning": "The search of settings.",
    "capacity": "What a size needs, before a start.",
    "artifacts": "Models on disk.",
    "batch": "Recommendations for every user, in files.",
    "tracking": "Runs in MLflow.",
    "reporting": "Plots and HTML pages.",
    "serving": "Models that answer requests.",
}


def on_config(config: Any) -> Any:
    """Add the generated pages to the navigation."""
    sections = {name: pages for entry in config.nav for name, pages in entry.items()}
    copies = [page for page, _ in present_copies().values()]
    sections["Results"] += [{title: page} for page, title in COPIES.values() if page in copies and "results/" in page]
    sections["Reference"] += [
        {"Commands": ["reference/commands/index.md", *({name: f"reference/commands/{name}.md"} for name in COMMANDS)]},
        {"Models": ["reference/models/index.md", *({name: f"reference/models/{name}.md"} for name in MODELS)]},
        {"Packages": [{name: f"reference/packages/{name}.md"} for name in PACKAGES]},
    ]
    others = [{title: page} for page, title in COPIES.values() if page in copies and "results/" not in page]
    config.nav.append({"Project": others})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    for name, text in generated_pages():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put in what comments of a page stand for, and formulas as MathML, which browsers draw by themselves."""
    return with_formulas(with_inclusions(markdown))


def generated_pages() -> Iterator[tuple[str, str]]:
    """Yield (name, Markdown) of every generated page."""
    yield "reference/api.md", api_page()
    yield "reference/commands/index.md", commands_page()
    for name in COMMANDS:
        yield f"reference/commands/{name}.md", command_page(name)
    yield "reference/models/index.md", models_page()
    for name, model in MODELS.items():
        yield f"reference/models/{name}.md", model_page(name, model)
    for name, about in PACKAGES.items():
        yield f"reference/packages/{name}.md", package_page(name, about)
    for source, (page, _) in present_copies().items():
        yield page, copied(source, page)


# Inclusions


def with_inclusions(text: str) -> str:
    """Replace comments such as `<!-- drawing: strong -->` by what they stand for."""
    makers: dict[str, Callable[[str], str]] = {
        "drawing": lambda name: drawing(getattr(splitting, name)),
        "table": lambda file: "\n".join(first_table((ROOT / file).read_text(encoding="utf-8"))),
        "metrics": lambda _: metric_table(),
        "families": lambda _: family_table(),
    }
    return re.sub(r"<!-- (\w+)(?:: (\S+))? -->", lambda found: makers[found[1]](found[2]), text)


def drawing(function: Any) -> str:
    """Return the drawing of a docstring as a code block."""
    found = re.search(r"```\n(.*?)```", inspect.getdoc(function) or "", re.DOTALL)
    if found is None:
        raise LookupError(f"Expected a drawing (between ```) in the docstring of {function.__name__}, found none.")
    return f"```text\n{found[1].rstrip()}\n```"


def first_table(text: str) -> list[str]:
    """Return the lines of the first table of a Markdown text."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    stop = next((number for number in range(start, len(lines)) if not lines[number].startswith("|")), len(lines))
    return lines[start:stop]


def metric_table() -> str:
    """Every metric with its definition, from the docstrings."""
    from recsys.evaluation.metrics import ERRORS, METRICS

    rows = [(f"`{name}@k`", summary(metric)) for name, metric in METRICS.items()]
    return table(("metric", "of one user with R held-out items"), rows).replace("h_i", "hᵢ") + (
        "\n\n" + table(("metric", "of predicted ratings"), [(f"`{name}`", e.formula) for name, e in ERRORS.items()])
    )


def with_formulas(text: str) -> str:
    """Replace `$$...$$` by MathML."""
    block = '<div class="formula">{}</div>'
    return re.sub(
        r"\$\$(.+?)\$\$", lambda found: block.format(convert(found[1].strip(), display="block")), text, flags=re.S
    )


# Commands


def commands_page() -> str:
    """The table of all commands, and the flags that all share."""
    rows = [(f"[`recsys {name}`]({name}.md)", about) for name, about in COMMANDS.items()]
    context = click.Context(main, info_name="recsys")
    shared = [parameter for parameter in main.get_params(context) if isinstance(parameter, click.Option)]
    return "\n\n".join(
        [
            "# Commands",
            "Made from the command line itself: what `recsys COMMAND --help` prints.",
            table(("command", "does"), rows),
            "## Flags before the command",
            options_table(shared, context),
            "## Exit codes",
            table(
                ("code", "means"),
                [
                    ("0", "The job is done."),
                    ("1", "The job failed, or a gate refused the lists; the message says what to do."),
                    ("2", "The command was typed wrongly."),
                ],
            ),
        ]
    )


def command_page(name: str) -> str:
    """Usage, help and flags of a command."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=click.Context(main, info_name="recsys"))
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    reading = {field.name for field in dataclasses.fields(ReadingOptions)}
    own = [option for option in options if option.name not in reading]
    shared = [option for option in options if option.name in reading]
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"# `recsys {name}`", inspect.cleandoc(command.help or ""), f"```text\n{usage}\n```"]
    parts += ["## Flags", options_table(own, context)] if own else []
    parts += ["## Flags for reading ratings", options_table(shared, context)] if shared else []
    return "\n\n".join(parts)


def options_table(options: list[click.Option], context: click.Context) -> str:
    """Flags, help and defaults."""
    rows = []
    for option in options:
        names = ", ".join(f"`{flag}`" for flag in option.opts)
        others = "".join(f" / `{flag}`" for flag in option.secondary_opts)
        choices = option.type.choices if isinstance(option.type, click.Choice) else ()
        value = "" if option.is_flag or choices else f" *{option.make_metavar(context).removesuffix(' RANGE')}*"
        does = (option.help or "") + (f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else "")
        default = option.get_default(context, call=False) if option.show_default else None
        rows.append((f"{names}{others}{value}", does, "" if default is None else f"`{default}`"))
    return table(("flag", "does", "default"), rows)


# Models


def models_page() -> str:
    """All models, by task and family."""
    parts = ["# Models", "Made from the code: each name leads to its settings, its source and what was measured."]
    for task, title in (("ranking", "## Models of rankings"), ("rating", "## Models of ratings")):
        rows = [
            (f"[`{name}`]({name}.md)", model.family, summary(model), "no" if model.needs_training_users else "yes")
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


def model_page(name: str, model: type[Recommender]) -> str:
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
        measured(name),
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


def measured(name: str) -> str:
    """What the benchmarks measured of a model, beside the published figure of the same model where there is one."""
    parts = []
    for file in RESULTS:
        if not (ROOT / file).is_file():
            continue
        text = (ROOT / file).read_text(encoding="utf-8")
        head, rule, *rows = first_table(text)
        ours = [row for row in rows if re.match(rf"\| `{name}[`,]", row)]
        if ours:
            theirs = [row for row in rows if row.split("|")[1].strip() in PUBLISHED.get(name, ())]
            theirs = [row.replace("| ", "| published: ", 1) for row in theirs]
            page, title = COPIES[file]
            parts.append("\n".join([f"[{title}](../../{page})\n", head, rule, *ours, *theirs]))
    return "\n\n".join(parts) or "Not in the tables of this version."


# API


def api_page() -> str:
    """The public names, with their docstrings."""
    names = [name for name in recsys.__all__ if name != "__version__"]
    listed = [(f"[`recsys.{name}`][{path_of(name)}]", summary(getattr(recsys, name), name)) for name in names]
    parts = [
        "# Public API",
        "These names are stable. `import recsys` takes a tenth of a second: each is imported when it is first used.",
        table(("name", "what it is"), listed),
    ]
    for name in names:
        options = f"      heading: recsys.{name}\n      toc_label: {name}\n      heading_level: 2"
        options += "\n      inherited_members: true" if name == "Recommender" else ""
        options += "\n      show_attribute_values: false" if name == "MODELS" else ""
        parts.append(f"::: {path_of(name)}\n    options:\n{options}")
    return "\n\n".join(parts)


def path_of(name: str) -> str:
    """Where a public name is defined."""
    found = getattr(recsys, name)
    return f"{found.__module__}.{name}" if hasattr(found, "__qualname__") else f"{recsys._HOMES[name]}.{name}"


def package_page(name: str, about: str) -> str:
    """Every public name of a package; those of the public API are described there."""
    folder = ROOT.joinpath("recsys", *name.split("."))
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.name[0] != "_"]
    homes: dict[str, list[str]] = {}
    for public in recsys.__all__:
        if public != "__version__":
            homes.setdefault(path_of(public).rpartition(".")[0], []).append(public)
    parts = [f"# `recsys.{name}`", about]
    for module in modules:
        hidden = "".join(f', "!^{public}$"' for public in homes.get(module, []))
        parts.append(f'::: {module}\n    options:\n      heading_level: 2\n      filters: ["!^_"{hidden}]')
        if hidden:
            links = ", ".join(f"[`{public}`][{module}.{public}]" for public in homes[module])
            parts.append(f"See also the public API: {links}.")
    return "\n\n".join(parts)


# Copies of pages outside docs/


def present_copies() -> dict[str, tuple[str, str]]:
    """Those of COPIES that are there."""
    return {source: target for source, target in COPIES.items() if (ROOT / source).is_file()}


def copied(source: str, page: str) -> str:
    """A page of the repository with its links made to fit; a link to what the site does not show becomes text."""
    pages = {name: target for name, (target, _) in present_copies().items()}

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        if "://" in target or target.startswith(("#", "mailto:")):
            return found[0]
        name, _, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        shown = pages.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        if shown is None:
            return label if label.startswith("`") else f"`{file}`"
        return f"[{label}]({posixpath.relpath(shown, posixpath.dirname(page) or '.')}{'#' * bool(anchor)}{anchor})"

    text = re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", link, (ROOT / source).read_text(encoding="utf-8"))
    return f"---\nhide: [toc]\n---\n\n{text}" if source in RESULTS else text  # wide tables


# Text


def summary(thing: Any, name: str = "") -> str:
    """The first sentence of a docstring; of the models' table, what it is."""
    if name == "MODELS":
        return "Every model by its name."
    text = re.split(r"\n\s*\n", inspect.getdoc(thing) or "")[0]
    return " ".join(text.split())


def linked(text: str) -> str:
    """Text with links to the papers it names by their arXiv numbers."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
