"""Artefacts: loaded only as they were saved, and never written where they cannot be."""

import json
import tempfile

import numpy as np
import pytest

from tesserec import artifacts
from tesserec.artifacts import MAKERS, fingerprint_folder, open_artifact, parse_json, require_place, write_artifact
from tesserec.data.catalogue import Catalogue
from tesserec.errors import ArtifactError
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds

CATALOGUE = Catalogue(["a", "b"])
SAVED = {
    "embeddings": Embeddings(CATALOGUE, np.ones((2, 3), dtype=np.float32), state={"mean": np.ones(3)}),
    "semantic-ids": SemanticIds(CATALOGUE, np.array([[0], [1]]), (2,), codebooks=(np.ones((2, 4)),)),
}


def save(folder, kind="embeddings"):
    with write_artifact(folder, kind=kind, config={}) as staging:
        (staging / "part").mkdir()
        (staging / "payload.txt").write_text("payload")
        (staging / "part" / "more.txt").write_text("more")
    return folder


DAMAGE = {
    "a changed byte": lambda folder: (folder / "payload.txt").write_text("pAyload"),
    "a missing file": lambda folder: (folder / "payload.txt").unlink(),
    "a changed file in a folder": lambda folder: (folder / "part" / "more.txt").write_text("less"),
    "a file that was added": lambda folder: (folder / "other.txt").write_text("other"),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_files_that_are_not_those_that_were_saved_are_refused_with_the_way_out(tmp_path, kind, damage):
    folder = save(tmp_path / "artefact", kind)
    with open_artifact(folder, kind=kind) as (path, manifest):
        assert (path, manifest.kind) == (folder, kind)
    damage(folder)
    with (
        pytest.raises(ArtifactError, match=rf"artefact \({kind}\) is damaged: .*Make it again with {MAKERS[kind]}"),
        open_artifact(folder, kind=kind),
    ):
        pass


@pytest.mark.parametrize("kind", SAVED)
def test_a_changed_byte_in_any_file_is_noticed(tmp_path, kind):
    value = SAVED[kind]
    value.save(tmp_path / "artefact")
    for file in sorted((tmp_path / "artefact").iterdir()):
        if file.name != "manifest.json":
            content = file.read_bytes()
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(ArtifactError, match="its files are not those that were saved"):
                type(value).load(tmp_path / "artefact")
            file.write_bytes(content)
            type(value).load(tmp_path / "artefact")


def test_hidden_files_are_no_damage(tmp_path):
    folder = save(tmp_path / "artefact")
    (folder / ".DS_Store").write_text("of a file browser")
    with open_artifact(folder, kind="embeddings"):
        pass


def test_the_files_of_a_folder_are_read_once_until_they_change(tmp_path, monkeypatch):
    read = []
    whole = artifacts._fingerprint_files
    monkeypatch.setattr(artifacts, "_fingerprint_files", lambda files: read.append(files) or whole(files))
    folder = save(tmp_path / "artefact")
    first = fingerprint_folder(folder)
    assert len(read) == 1  # when it was written; the renaming changes nothing
    (folder / "payload.txt").write_text("payload, and more")
    assert fingerprint_folder(folder) != first
    assert len(read) == 2


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("kind", 3, "its kind is 3"),
        ("config", [], r"its config is \[\]"),
        ("sources", None, "its sources is None"),
        ("format_version", "1", "its format_version is '1'"),
    ],
)
def test_a_manifest_with_entries_of_the_wrong_type_is_refused(tmp_path, entry, value, message):
    folder = save(tmp_path / "artefact")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, entry: value}))
    with pytest.raises(ArtifactError, match=f"cannot be read .*{message}"), open_artifact(folder, kind="embeddings"):
        pass


def test_json_that_is_nested_too_deeply_is_an_error_like_any_other(tmp_path):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
    folder = save(tmp_path / "artefact")
    (folder / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="nested too deeply"), open_artifact(folder, kind="embeddings"):
        pass


def test_a_place_that_cannot_be_written_is_refused_and_left_as_it_was(tmp_path, monkeypatch):
    require_place(tmp_path / "new" / "deep" / "artefact", kind="report")
    assert list(tmp_path.iterdir()) == []
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(ArtifactError, match="taken is a file"):
        require_place(taken, kind="report")
    with pytest.raises(ArtifactError, match="taken is no folder"):
        require_place(taken / "inside" / "artefact", kind="report")

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(ArtifactError, match=r"Nothing can be written into .*Permission denied"):
        require_place(tmp_path / "artefact", kind="report")
