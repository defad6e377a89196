"""Model directories that are damaged or crafted: every one an ArtifactError that says what is wrong."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model_folders import (
    COUNTS,
    ITEMS,
    drop,
    edit,
    files_of,
    fitted,
    flip,
    replace_and_seal,
    save,
    seal,
    truncate,
    truncate_text,
)
from safetensors.torch import load_file, save_file

import recsys
from recsys.artifacts import load_model, save_model
from recsys.data.interactions import Vocabulary
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.models.trained import TrainedModel


@pytest.fixture
def model(tmp_path):
    return save(tmp_path / "model")


def other_weights(folder):
    other = save_model(folder.parent / "other", TrainedModel(fitted("dae"), Vocabulary.of(ITEMS), COUNTS))
    replace_and_seal(folder, "weights.safetensors", (other / "weights.safetensors").read_bytes())


def other_items(folder):
    pq.write_table(pa.table({"name": ITEMS}), folder / "items.parquet")
    seal(folder)


DAMAGES = {
    "weights_truncated": (
        lambda m: truncate(m / "weights.safetensors"),
        "weights.safetensors is damaged: its checksum",
    ),
    "weights_changed": (lambda m: flip(m / "weights.safetensors"), "weights.safetensors is damaged: its checksum"),
    "weights_emptied": (lambda m: (m / "weights.safetensors").write_bytes(b""), "weights.safetensors is damaged"),
    "weights_missing": (lambda m: (m / "weights.safetensors").unlink(), "Expected weights.safetensors in"),
    "weights_garbage": (lambda m: replace_and_seal(m, "weights.safetensors", b"x" * 99), "cannot be read as a ease"),
    "weights_of_another": (other_weights, "cannot be read as a ease model: Expected the tensor 'weights'"),
    "items_truncated": (lambda m: truncate(m / "items.parquet"), "items.parquet is damaged: its checksum"),
    "items_missing": (lambda m: (m / "items.parquet").unlink(), "Expected items.parquet in"),
    "items_garbage": (lambda m: replace_and_seal(m, "items.parquet", b"PAR1"), "cannot be read as a ease model"),
    "items_of_another": (other_items, "cannot be read as a ease model"),
    "no_description": (lambda m: (m / "model.json").unlink(), "Expected a model directory with model.json"),
    "not_json": (lambda m: truncate_text(m / "model.json"), "model.json is damaged or not from recsys"),
    "not_text": (lambda m: (m / "model.json").write_bytes(b"\xff\xfe\x00"), "damaged or not from recsys"),
    "a_list": (lambda m: (m / "model.json").write_text("[]"), "damaged or not from recsys"),
    "a_number": (lambda m: (m / "model.json").write_text("3"), "damaged or not from recsys"),
    "null": (lambda m: (m / "model.json").write_text("null"), "damaged or not from recsys"),
    "no_version": (lambda m: drop(m, "schema_version"), "damaged or not from recsys"),
    "no_files": (lambda m: drop(m, "files"), "damaged or not from recsys"),
    "no_config": (lambda m: drop(m, "config"), r"expected config \(dict\), found none"),
    "no_items": (lambda m: drop(m, "items"), r"expected items \(int\), found none"),
    "a_number_of_truth": (lambda m: edit(m, items=True), r"expected items \(int\), found True"),
    "files_a_list": (lambda m: edit(m, files=["items.parquet"]), "damaged or not from recsys"),
    "files_unlisted": (lambda m: edit(m, files={}), "found none of items.parquet, weights.safetensors"),
    "files_elsewhere": (
        lambda m: edit(m, files={**files_of(m), "../other/weights.safetensors": "0"}),
        r"Expected \.\./other/weights\.safetensors in",
    ),
    "files_absolute": (lambda m: edit(m, files={**files_of(m), "/etc/hosts": "0"}), "Expected /etc/hosts in"),
    "files_above": (lambda m: edit(m, files={**files_of(m), "..": "0"}), r"Expected \.\. in"),
    "a_newer_format": (lambda m: edit(m, schema_version=2), "Expected model format 1, found 2"),
    "a_strange_format": (lambda m: edit(m, schema_version=[1]), r"expected schema_version \(int\), found \[1\]"),
    "an_unknown_model": (lambda m: edit(m, model="gru4rec"), "Expected a model of popularity, .*found 'gru4rec'"),
    "a_strange_model": (lambda m: edit(m, model=["ease"]), r"expected model \(str\), found \['ease'\]"),
    "an_unknown_setting": (lambda m: edit(m, config={"depth": 3}), "ease has no setting 'depth'"),
    "a_setting_out_of_range": (lambda m: edit(m, config={"l2": -1}), "Expected l2 above 0, found -1"),
    "a_setting_of_null": (lambda m: edit(m, config={"l2": None}), "Expected ease.l2 to be of type float, found None"),
    "settings_a_number": (lambda m: edit(m, config=5), r"expected config \(dict\), found 5"),
    "settings_a_list": (lambda m: edit(m, config=[5]), r"expected config \(dict\), found \[5\]"),
    "reading_a_list": (lambda m: edit(m, reading=[5]), r"expected reading \(dict\), found \[5\]"),
    "reading_nonsense": (lambda m: edit(m, reading={"duplicates": "best"}), "in reading, Expected duplicates"),
    "reading_text": (lambda m: edit(m, reading={"min_rating": "four"}), "in reading, must be real number"),
    "split_a_list": (lambda m: edit(m, split=[]), r"expected split \(dict\), found \[\]"),
    "files_of_numbers": (lambda m: edit(m, files=dict.fromkeys(files_of(m), 5)), "is damaged: its checksum"),
    "files_with_nul": (lambda m: edit(m, files={**files_of(m), "a\0b": "0"}), "found none: the model is incomplete"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_refused_with_the_reason(kind, model):
    damage, complaint = DAMAGES[kind]
    damage(model)
    with pytest.raises(ArtifactError, match=complaint) as caught:
        load_model(model)
    assert str(model) in str(caught.value)


def test_no_part_of_a_shortened_file_is_taken_for_the_whole(model):
    whole = (model / "weights.safetensors").read_bytes()
    for length in range(0, len(whole), 7):
        (model / "weights.safetensors").write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="is damaged"):
            load_model(model)


def test_settings_that_do_not_fit_the_weights_are_refused(tmp_path):
    folder = save(tmp_path / "model", name="dae")
    edit(folder, config={"latent": 3})
    with pytest.raises(ArtifactError, match=r"dae model: Expected 'encoder.weight' of shape \(4, 3\), found \(4, 2\)"):
        load_model(folder)


@pytest.mark.parametrize("place", ["nowhere", "empty", "file.txt"])
def test_a_place_without_a_model_is_refused(place, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(ArtifactError, match="Expected a model directory"):
        load_model(tmp_path / place)


def test_a_device_that_is_not_there_is_no_damage(model):
    with pytest.raises(ConfigError, match="'abacus' cannot be used here"):
        load_model(model, device="abacus")


# JSON of any shape


def text(content):
    return lambda folder: (folder / "model.json").write_bytes(content)


def with_value(content):
    """model.json with a further key whose value is this text."""

    def write(folder):
        file = folder / "model.json"
        whole = file.read_text(encoding="utf-8").rstrip().removesuffix("}")
        file.write_text(whole + ', "more": ' + content + "}", encoding="utf-8")

    return write


JSON = {
    "deep lists": (text(b"[" * 100_000), "too many levels|Expecting"),
    "deep objects": (with_value('{"a":' * 5000 + "1" + "}" * 5000), "too many levels"),
    "as deep as Python reads": (with_value("[" * 900 + "]" * 900), "too many levels"),
    "a number of 5000 digits": (with_value("9" * 5000), "damaged or not from recsys"),
    "a number beyond floats": (with_value("1e999"), "the number 1e999 is not finite"),
    "not a number": (with_value("NaN"), "the number NaN is not finite"),
    "infinity": (with_value("[-Infinity]"), "the number -Infinity is not finite"),
    "a key twice": (with_value('1, "model": "vae"'), "a key occurs twice"),
    "UTF-16": (lambda m: text((m / "model.json").read_text("utf-8").encode("utf-16"))(m), "damaged or not from recsys"),
    "latin-1": (text('{"model": "ü"}'.encode("latin-1")), "damaged or not from recsys"),
    "a byte order mark": (lambda m: text(b"\xef\xbb\xbf" + (m / "model.json").read_bytes())(m), "BOM"),
    "a string": (text(b'"model"'), "holds no JSON object"),
    "nothing": (text(b""), "damaged or not from recsys"),
    "half a surrogate": (with_value('"\\ud800", "files": "\\ud800"'), "a key occurs twice"),
}


@pytest.mark.parametrize("kind", JSON)
def test_json_of_any_shape_is_refused_with_the_reason(kind, model):
    damage, complaint = JSON[kind]
    damage(model)
    with pytest.raises(ArtifactError, match=complaint):
        load_model(model)


# Ids


def ids_table(**changes):
    columns = {"position": pa.array([0, 1, 2, 3], pa.int32()), "item_id": ITEMS, "count": COUNTS}
    return pa.table({name: column for name, column in {**columns, **changes}.items() if column is not None})


TABLES = {
    "positions in disorder": ({"position": [0, 2, 1, 3]}, "positions 0 to 3 in order"),
    "positions missing": ({"position": [0, 1, None, 3]}, "positions 0 to 3 in order"),
    "positions as text": ({"position": ["0", "1", "2", "3"]}, "expected integers, found string"),
    "positions as fractions": ({"position": [0.0, 1.0, 2.0, 3.0]}, "expected integers, found double"),
    "an id missing": ({"item_id": ["a", "b", None, "d"]}, "1 missing"),
    "an id twice": ({"item_id": ["a", "b", "a", "d"]}, "Expected distinct ids"),
    "ids as fractions": ({"item_id": [0.5, 1.5, 2.5, 3.5]}, "ids of text or integers, found double"),
    "ids as bytes": ({"item_id": [b"a", b"b", b"c", b"d"]}, "ids of text or integers, found binary"),
    "ids as lists": ({"item_id": [["a"], ["b"], ["c"], ["d"]]}, "ids of text or integers, found list"),
    "ids as a dictionary": ({"item_id": pa.array(ITEMS).dictionary_encode()}, "ids of text or integers"),
    "a negative count": ({"count": [1, 2, -1, 1]}, "counts of 0 or more"),
    "a count missing": ({"count": [1, 2, None, 1]}, "positions 0 to 3 in order"),
    "counts as fractions": ({"count": [0.5] * 4}, "expected integers"),
    "no counts": ({"count": None}, "expected the columns position, item_id, count"),
    "one column more": ({"code": [1] * 4}, "expected the columns position, item_id, count"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_ids_that_is_not_as_written_is_refused(kind, model):
    changes, complaint = TABLES[kind]
    pq.write_table(ids_table(**changes), model / "items.parquet")
    seal(model)
    with pytest.raises(ArtifactError, match=complaint):
        load_model(model)


def test_more_or_fewer_ids_than_items_are_refused(model):
    pq.write_table(ids_table().slice(1), model / "items.parquet")
    seal(model)
    with pytest.raises(ArtifactError, match="expected 4 rows, found 3"):
        load_model(model)
    edit(model, items=3)
    with pytest.raises(ArtifactError, match="positions 0 to 2 in order"):
        load_model(model)


def test_a_parquet_file_of_text_that_is_not_utf8_is_refused(model):
    table = ids_table()
    broken = pa.Array.from_buffers(pa.string(), 4, pa.array([b"a", b"\xff", b"c", b"d"]).buffers())
    pq.write_table(table.set_column(1, "item_id", broken), model / "items.parquet")
    seal(model)
    with pytest.raises(ArtifactError, match="cannot be read as a ease model"):
        load_model(model)


def test_a_folder_named_like_a_partition_is_no_column(tmp_path):
    assert load_model(save(tmp_path / "l2=5" / "model")).items.to_list() == ITEMS


# Weights


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["ease", "dae"])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(name, value, tmp_path):
    folder = save(tmp_path / "model", name=name)
    state = load_file(folder / "weights.safetensors")
    first = next(iter(state))
    state[first].view(-1)[0] = value
    save_file(state, folder / "weights.safetensors")
    seal(folder)
    with pytest.raises(ArtifactError, match=f"finite numbers in '{first}'"):
        load_model(folder)
    broken = fitted(name)
    broken.get_state = lambda: state
    with pytest.raises(DataError, match=f"finite numbers in '{first}'"):
        save_model(tmp_path / "other", TrainedModel(broken, Vocabulary.of(ITEMS), COUNTS))
    assert not (tmp_path / "other").exists()


def test_an_index_out_of_range_is_refused_before_it_is_used(tmp_path):
    folder = save(tmp_path / "model", name="sparse-ease")
    state = load_file(folder / "weights.safetensors")
    name = next(name for name in state if name.endswith("indices"))
    state[name] = torch.full_like(state[name], 50_000_000)
    save_file(state, folder / "weights.safetensors")
    seal(folder)
    with pytest.raises(ArtifactError, match=r"indices.* in 0\.\.3"):
        load_model(folder)


def test_a_tensor_of_another_type_is_refused(model):
    state = load_file(model / "weights.safetensors")
    save_file({name: tensor.double() for name, tensor in state.items()}, model / "weights.safetensors")
    seal(model)
    with pytest.raises(ArtifactError, match="float64"):
        load_model(model)


def test_the_users_of_a_model_that_knows_no_others_are_needed(tmp_path):
    pytest.importorskip("implicit")
    folder = save(tmp_path / "model", name="bpr", users=Vocabulary.of(["u", "v", "w"]))
    edit(folder, files={name: sum for name, sum in files_of(folder).items() if name != "users.parquet"})
    with pytest.raises(ArtifactError, match=r"expected users\.parquet, found none"):
        load_model(folder)


def test_more_or_fewer_users_than_the_weights_have_are_refused(tmp_path):
    pytest.importorskip("implicit")
    folder = save(tmp_path / "model", name="bpr", users=Vocabulary.of(["u", "v", "w"]))
    for count in (2, 4):
        ids = [f"user {n}" for n in range(count)]
        pq.write_table(
            pa.table({"position": pa.array(range(count), pa.int32()), "user_id": ids}), folder / "users.parquet"
        )
        seal(folder)
        with pytest.raises(ArtifactError, match=f"Expected 3 users in .*found {count}"):
            load_model(folder)


@pytest.mark.parametrize(("name", "tensor"), [("als", "l2"), ("biased-mf", "codes")])
def test_weights_whose_equations_cannot_be_solved_are_named(name, tensor, tmp_path):
    pytest.importorskip("implicit")
    ratings = pd.DataFrame({"user_id": list("uuvvww"), "item_id": list("abbcca"), "rating": [1.0, 2, 3, 4, 5, 1]})
    folder = recsys.save_model(tmp_path / "model", recsys.fit(ratings, name, held_out=0))
    state = load_file(folder / "weights.safetensors")
    state[tensor] = state[tensor].new_full(state[tensor].shape, 0 if tensor == "l2" else 3e38)
    save_file(state, folder / "weights.safetensors")
    seal(folder)
    changed = ratings[ratings["rating"] < 5]  # ALS knows what it gave to the histories of the training
    with pytest.raises(DataError, match="cannot be solved"):
        load_model(folder).recommend(changed)
