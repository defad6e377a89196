"""Who may import whom, what is imported when, and what never stands in the repository."""

import ast
import importlib
import re
import subprocess
import sys

import click
import numpy as np
import pytest
from paths import ROOT

import recsys
from pipelines.cli.main import COMMANDS, main
from pipelines.cli.settings import SplitOptions
from recsys.data.interactions import Vocabulary
from recsys.data.reading import ReadingOptions
from recsys.evaluation.metrics import METRICS
from recsys.evaluation.tasks import TASKS
from recsys.splitting import PROTOCOLS, weak

FILES = sorted([*ROOT.glob("recsys/**/*.py"), *ROOT.glob("pipelines/**/*.py")])

# From the ground up: a module imports from its own package and those before it.
PACKAGES_IN_ORDER = [
    "errors",
    "types",
    "system",
    "data",
    "splitting",
    "inference",
    "training",
    "models",
    "latent",
    "explain",
    "evaluation",
    "tuning",
    "capacity",
    "artifacts",
    "batch",
    "tracking",
    "reporting",
    "serving",
]

# The modules that may import each of these, inside functions only: help and scoring must not wait for them.
HOMES = {
    "mlflow": {
        "recsys.tracking.mlflow_tracker",
        "recsys.tracking.mlflow_client",
        "recsys.tracking.registry",
        "recsys.serving.pyfunc",
        "recsys.serving.pyfunc_model",
    },
    "matplotlib": {"recsys.reporting.plotting"},
    "implicit": {"recsys.models.factorization.implicit_models"},
    "ray": {"recsys.batch.engines", "pipelines.serve"},
    "optuna": {"recsys.tuning.search"},
    "jinja2": {"recsys.reporting.page"},
    "sklearn": {"recsys.latent.projection", "recsys.latent.clusters", "recsys.data.item_features.columns"},
    "fsspec": {"recsys.system.storage"},
    "faiss": {"recsys.latent.index"},
    "fastapi": {"recsys.serving.http"},
    "prometheus_client": {"recsys.serving.gatekeeper"},
    "uvicorn": {"pipelines.serve"},
}
# A program of MLflow's, and the modules of the service, which only `recsys serve` imports: they import at their tops.
LOADED_LAST = {"recsys.serving.pyfunc_model", "recsys.serving.http", "recsys.serving.gatekeeper"}

UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "skops"}


def name_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(file): file.read_text(encoding="utf-8") for file in FILES}
TREES = {module: ast.parse(source) for module, source in SOURCES.items()}
PACKAGES = {name_of(file) for file in FILES if file.name == "__init__.py"}

every_module = pytest.mark.parametrize("module", TREES)


def imports(module, run_only=True):
    """(imported module, whether at the top) of each import; those for type checkers only are left out."""
    unseen = {id(node) for block in ast.walk(TREES[module]) if for_types_only(block) for node in ast.walk(block)}
    lazy = {
        id(node)
        for function in ast.walk(TREES[module])
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(TREES[module]):
        if id(node) not in unseen:
            for name in names_in(node, module):
                yield name, id(node) not in lazy


def for_types_only(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def names_in(node, module):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = module.split(".") if module in PACKAGES else module.split(".")[:-1]
    above = package[: len(package) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in TREES else base for alias in node.names]


def floor(module):
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return len(PACKAGES_IN_ORDER) if package == "pipelines" else PACKAGES_IN_ORDER.index(room) if room else -1


# Size and documentation

LONGEST_FUNCTION = 50  # lines without the docstring
LONGEST_FILE = 400


def code_lines(function):
    """Lines of a function, its docstring left out."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


@every_module
def test_functions_and_files_stay_short(module):
    functions = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [function.name for function in functions if code_lines(function) > LONGEST_FUNCTION] == []
    assert len(SOURCES[module].splitlines()) <= LONGEST_FILE


def public_definitions(body, prefix=""):
    """(name, node) of the functions, classes and methods without a leading underscore."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{node.name}.")


@every_module
def test_every_public_name_is_documented(module):
    assert [name for name, node in public_definitions(TREES[module].body) if not ast.get_docstring(node)] == []


# Imports


@every_module
def test_imports_go_down_never_up(module):
    up = [name for name, _ in imports(module) if name in TREES and name != "recsys" and floor(name) > floor(module)]
    assert up == []


def test_the_library_has_these_entries_and_no_others():
    rooms = {module.split(".")[1] for module in TREES if module.startswith("recsys.")}
    assert rooms == set(PACKAGES_IN_ORDER)


def test_no_module_imports_itself_by_a_detour():
    graph = {module: {name for name, top in imports(module) if top and name in TREES} for module in TREES}
    for package in PACKAGES:  # its own modules are parts of it
        graph[package] = {name for name in graph[package] if not name.startswith(f"{package}.")}
    while leaves := [module for module, needs in graph.items() if not needs & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert graph == {}


@every_module
def test_the_library_knows_no_jobs_and_no_command_line(module):
    packages = {name.partition(".")[0] for name, _ in imports(module)}
    assert module.startswith("pipelines") or not packages & {"pipelines", "click", "tqdm"}


@every_module
def test_jobs_name_each_other_relatively_because_they_are_installed_under_another_name(module):
    assert not {name for name in re.findall(r"^\s*(?:from|import) (\w+)", SOURCES[module], re.M) if "pipelines" in name}


@every_module
def test_jobs_do_not_import_jobs(module):
    jobs = {f"pipelines.{name}" for name in COMMANDS}
    assert not {name for name, _ in imports(module)} & jobs - {module}


@every_module
def test_heavy_packages_have_one_home_each_and_are_imported_when_used(module):
    for name, at_top in imports(module):
        package = name.partition(".")[0]
        if package in HOMES:
            assert module in HOMES[package], f"{package} belongs to {HOMES[package]}"
            assert not at_top or module in LOADED_LAST, f"{package} at the top of {module}"


@every_module
def test_nothing_is_ever_unpickled_or_run_from_text(module):
    assert not {name.partition(".")[0] for name, _ in imports(module)} & UNPICKLERS
    for call in (node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)):
        function = ast.unparse(call.func)
        assert function not in {"eval", "exec", "compile", "__import__", "torch.load", "torch.save"}
        assert not function.endswith(("read_pickle", "to_pickle"))
        for keyword in call.keywords:
            assert keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False"


@every_module
def test_a_module_opens_with_its_purpose(module):
    assert (ast.get_docstring(TREES[module]) or "").strip()


@every_module
def test_the_library_does_not_print(module):
    called = {ast.unparse(node.func) for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)}
    assert module.startswith("pipelines") or not called & {"print", "logging.basicConfig", "sys.exit", "breakpoint"}


# What an import does


def run(code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_imports_neither_torch_nor_pandas():
    code = """
import sys
from pipelines.cli.main import main
main(["--help"], standalone_mode=False)
print({"torch", "pandas", "numpy", "scipy", "pyarrow", "mlflow", "matplotlib", "implicit", "ray"} & set(sys.modules))
"""
    assert run(code).endswith("set()\n")


def test_importing_the_library_changes_nothing_in_the_world():
    modules = [module for module in TREES if module.startswith("recsys") and module not in LOADED_LAST]
    code = f"""
import importlib, logging, os, random, sys
import numpy, torch
environment, seed = dict(os.environ), torch.initial_seed()
streams = torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate()
settings = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
for module in {modules}:
    importlib.import_module(module)
assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING, "logging"
assert logging.getLogger("recsys").handlers == [] and logging.getLogger("recsys").level == 0, "logging"
assert torch.initial_seed() == seed, "seed"
assert (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate()) == streams, "streams"
assert (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()) == settings, "torch"
assert not torch.cuda.is_initialized(), "GPU"
assert dict(os.environ) == environment, "environment"
print({set(HOMES)} & set(sys.modules))
"""
    assert run(code) == "set()\n"


# Commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_job_of_its_name(name):
    command = importlib.import_module(f"pipelines.{name}").command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").strip()
    assert main.get_command(click.Context(main), name) is command


def test_every_job_with_a_command_is_in_the_table():
    jobs = {
        module.partition(".")[2]
        for module, tree in TREES.items()
        if module.startswith("pipelines.")
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "command"
    }
    assert jobs == set(COMMANDS)


# Adding things: a metric and a protocol are one function and its registration, with nothing to do elsewhere


def test_a_metric_is_known_everywhere_once_it_is_in_the_table(monkeypatch):
    monkeypatch.setitem(METRICS, "first_hit", lambda hits, relevant, k: hits[:, 0].astype(float))
    split = recsys.split(tiny_interactions(), "weak", share=0.25)
    model = recsys.create_model("popularity").fit(split.train.matrix)
    assert set(recsys.evaluate(model.score, split.test, ("first_hit@1",)).means()) == {"first_hit@1"}


def test_a_protocol_is_known_everywhere_once_it_is_registered(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "quarter", lambda interactions, *, seed=0: weak(interactions, share=0.25, seed=seed))
    found = SplitOptions("quarter").split(tiny_interactions(), ReadingOptions(), 3, TASKS["ranking"])
    expected = recsys.split(tiny_interactions(), "quarter", seed=3)
    assert (found.test.held_out != expected.test.held_out).nnz == 0


def tiny_interactions():
    """Ten users, each with all eight items."""
    user, item = np.divmod(np.arange(80, dtype=np.int32), np.int32(8))
    return recsys.Interactions(Vocabulary.of(np.arange(10)), Vocabulary.of(np.arange(8)), user, item)


# The repository


def tracked():
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in git.stdout.split("\0") if name and (ROOT / name).is_file()]


# Written so that this file does not hold what it looks for.
FOREIGN = {
    "a folder of somebody's machine": r"(?<![\w.$}])/(?:wor[k]|roo[t]|hom[e]|User[s])/",
    "a local build of a package": r"\d\+(?:cp[u]|cu\d\d)",
    "an index of packages": r"(?:--(?:extra-)?index-ur[l]|--trusted-hos[t])[ =]\S*(?:\d+\.\d+\.\d+\.\d+|localhost)",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_tracked_files_hold_nothing_of_one_machine(what):
    found = {
        f"{file.relative_to(ROOT)}: {match.group()}"
        for file in tracked()
        if "written_by_0_1" not in file.parts  # kept as 0.1 wrote them, the versions of its packages included
        for match in re.finditer(FOREIGN[what], file.read_bytes().decode("utf-8", "replace"))
    }
    assert found == set()


def test_no_tracked_file_is_a_pickle_or_large():
    for file in tracked():
        assert file.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npz"}, file
        assert file.stat().st_size < 2_000_000, file


def test_there_is_no_drawer_for_everything():
    assert not {"utils", "util", "helpers", "common", "misc"} & {module.rpartition(".")[2] for module in TREES}


def test_no_two_test_files_have_one_name():
    """pytest imports them by their names alone."""
    names = [file.name for file in ROOT.glob("tests/**/*.py") if file.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
