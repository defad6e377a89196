"""Model folders of four items, as they are and with something wrong."""

import json

import numpy as np
from scipy.sparse import csr_matrix

from recsys.artifacts import save_model
from recsys.data.interactions import Vocabulary
from recsys.models import create_model
from recsys.models.trained import TrainedModel
from recsys.system.files import sha256

ITEMS = ["a", "007", "ü 'x'", ""]
COUNTS = np.array([3, 2, 1, 1])
TAKEN = csr_matrix(np.float32([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1]]))


def fitted(name="ease"):
    settings = {"dae": {"latent": 2, "epochs": 1}, "bpr": {"factors": 2, "iterations": 1}}
    return create_model(name, settings.get(name, {})).fit(TAKEN)


def save(directory, items=ITEMS, name="ease", **arguments):
    overwrite = arguments.pop("overwrite", False)
    return save_model(directory, TrainedModel(fitted(name), Vocabulary.of(items), COUNTS, **arguments), overwrite)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def edit(folder, **changes):
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def drop(folder, *keys):
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps({key: about[key] for key in about.keys() - keys}), encoding="utf-8")


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def seal(folder):
    """Make the checksums right again: the damage must be found by itself."""
    files = {name: sha256(folder / name) for name in json.loads((folder / "model.json").read_text())["files"]}
    edit(folder, files=files)


def replace_and_seal(folder, name, content):
    (folder / name).write_bytes(content)
    seal(folder)


def files_of(folder):
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))["files"]


def truncate_text(file):
    file.write_text(file.read_text(encoding="utf-8")[:-20], encoding="utf-8")
