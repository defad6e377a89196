"""Pages of the site that are made from the code: commands, models and the API; and copies of pages outside docs/.

A hook of MkDocs: pages are made while the site is built, nothing is written into the repository. In a page of docs/ a
comment stands for what is taken from elsewhere: `drawing: strong` for the drawing in that docstring, `table: FILE` for
the first table of a file, `metrics` for the definitions of the metrics, `families` for the kinds of models.
"""

from __future__ import annotations

import dataclasses
import inspect
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from markdown_text import first_sentence, first_table, summary, table
from mkdocs.structure.files import File
from model_pages import family_table, model_page, models_page

import recsys
from pipelines.cli.main import COMMANDS, main
from recsys import splitting
from recsys.data.reading import ReadingOptions
from recsys.models import MODELS

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
    "latent": "Embeddings, neighbors, maps, generated users.",
    "explain": "What a score is made of, what a model doubts.",
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
    tables = {name: place for name, place in present_copies().items() if name in RESULTS}
    yield "reference/models/index.md", models_page()
    for name, model in MODELS.items():
        yield f"reference/models/{name}.md", model_page(name, model, tables)
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


# API


def api_page() -> str:
    """The public names, with their docstrings."""
    names = [name for name in recsys.__all__ if name != "__version__"]
    found = {name: getattr(recsys, name) for name in names}
    about = {name: "Every model by its name." if name == "MODELS" else first_sentence(found[name]) for name in names}
    listed = [(f"[`recsys.{name}`][{path_of(name)}]", about[name]) for name in names]
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
