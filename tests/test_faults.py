"""Each fault is one line of a table: the command ends with one line that says what to do.

``make`` breaks something in a place of three folders: parameter files, data, and the workspace of a
small finished study ``mine``. To add a fault, add a line.
"""

import json
import math
import re
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from reidlib import cli
from reidlib.experiments.batch import run_all
from reidlib.experiments.study import load_study
from reidlib.utils.paths import Workspace, write_json
from tests.data.made_up import ROWS, draw

SMALL = {"dataset": "synthetic", "seeds": [0], "presets": ["untrained", "baseline", "improved"],
         "perplexity": 2.0,
         "synthetic": {"train_ids": 3, "test_ids": 2, "orientations": 2, "n_query": 2,
                       "n_query_copies": 1},
         "train": {"backbone": "vit_tiny_patch16_224", "pretrained": False, "image_size": 32,
                   "backbone_args": {"patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2},
                   "schedule": "end-to-end", "epochs": 1}}
PICTURES = [*ROWS, ("q2.png", "002", "x", "query"), ("g2.png", "002", "y", "gallery")]
TRAIN, EXPORT, REPORT = "study --study mine", "export --study mine", "report --study mine"
CHECK = "download DATA/mine/images.csv"
SCORE = "score DATA/mine.npz"
RANK = "rank --model DATA/model.safetensors --query DATA/photos/a.png --gallery DATA/"


class Place(NamedTuple):
    params: Path
    data: Path
    workspace: Workspace

    @property
    def run(self) -> Path:
        return self.workspace.runs / "baseline-s0"


def nothing(at):
    """The command alone is the fault."""


def raw(content: str | bytes):
    """A parameter file with this content."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda at: (at.params / "mine.yaml").write_bytes(data)


def study(**changes):
    """Another parameter file, in a workspace without results."""
    def make(at):
        shutil.rmtree(at.workspace.root)
        raw(yaml.safe_dump({**SMALL, **changes}))(at)
    return make


def train(**changes):
    return study(train={**SMALL["train"], **changes})


def loss(function, weight=1):
    return train(loss={"function": function, "weight": weight})


def folder_of(at, name):
    return at.run if name in ("run.json", "per_query.csv", "history.csv") else at.workspace.reports


def without(name: str, key: str):
    """A file of JSON that lost a key."""
    def make(at):
        path = folder_of(at, name) / name
        values = json.loads(path.read_text())
        del values[key]
        write_json(path, values)
    return make


def replaced(name: str, old: str, new: str):
    """A file of the reports with another value, by a regular expression."""
    def make(at):
        path = folder_of(at, name) / name
        text, found = re.subn(old, new, path.read_text(), count=1)
        assert found, (name, old)
        path.write_text(text)
    return make


def cut(name: str, lines: int | None = None):
    """A file of the reports that keeps its first lines, or half of its bytes."""
    def make(at):
        path = folder_of(at, name) / name
        data = path.read_bytes()
        kept = data[:len(data) // 2] if lines is None else b"".join(
            data.splitlines(keepends=True)[:lines])
        path.write_bytes(kept)
    return make


def half_the_weights(at):
    for path in at.workspace.artifacts.glob("baseline-s0-*/weights.safetensors"):
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def picture(change):
    """Own data, of which ``change`` breaks the first picture."""
    def make(at):
        folder = at.data / "mine"
        for seed, (name, *_) in enumerate(PICTURES):
            draw(folder / name, seed)
        lines = ["path,id,cam,split", *map(",".join, PICTURES)]
        (folder / "images.csv").write_text("\n".join(lines) + "\n")
        change(folder / PICTURES[0][0])
    return make


def own_study(**changes):
    """The study ``mine`` on own data that have no fault."""
    def make(at):
        picture(Path.exists)(at)
        study(dataset="mine/images.csv", **changes)(at)
    return make


def with_semicolons(path):
    listing = path.with_name("images.csv")
    listing.write_text(listing.read_text().replace(",", ";"))


def in_a_circle(path):
    path.unlink()
    path.symlink_to(path)


def with_nul(path):
    listing = path.with_name("images.csv")
    listing.write_text(listing.read_text().replace("ann", "a\0n"))


def features(**changes):
    """A file of features in which the given arrays are others, and one with another gallery."""
    def make(at):
        arrays = {"features": np.eye(4, dtype=np.float32), "ids": np.array([1, 2, 1, 2]),
                  "cams": np.array([*"aabb"]), "paths": np.array([*"wxyz"]),
                  "split": np.array(["query", "query", "gallery", "gallery"]), **changes}
        at.data.mkdir(exist_ok=True)
        for name in ("mine", "other"):
            np.savez(at.data / f"{name}.npz", **arrays)
            arrays.update(paths=np.array([*"wxyt"]))
    return make


def photos(change):
    """A trained model and two photos, after ``change`` of their folder."""
    def make(at):
        weights, = at.workspace.artifacts.glob("baseline-s0-*/weights.safetensors")
        for name in ("a.png", "b.png"):
            draw(at.data / "photos" / name)
        shutil.copy(weights, at.data / "model.safetensors")
        change(at.data / "photos")
    return make


def cuhk03(name: str, content: bytes):
    """A file in the folder of CUHK03, where nothing else is."""
    def make(at):
        path = at.data / "cuhk03-np" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return make


FAULTS = {  # name: command, what makes the fault, what the message says, exit code (1)
    # the command line
    "jobs 0": (f"{TRAIN} --jobs 0", nothing, "Invalid value for '--jobs': .*1", 2),
    "epochs -1": ("report --study mine --epochs -1", nothing, "epochs is -1; expected 0 or more"),
    "unknown study": ("report --study min", nothing, "unknown study 'min'.*known: mi"),
    "study not written": ("report --study ours", nothing, "unknown study 'ours'.*write one for a "
                          "study of your own, as notebooks/README.md says"),
    "study elsewhere": ("report --study ../../x", nothing, r"unknown study '\.\./\.\./x'"),
    "unknown preset": ("run --study mine --preset basline", nothing, "did you mean 'baseline'"),
    "seed -1": ("run --study mine --preset best --seed -1", nothing, "seed is -1; expected 0"),
    "device unknown": (f"{TRAIN} --device gpu", nothing, "unknown device 'gpu'; use auto, cpu"),
    "device meta": (f"{TRAIN} --device meta", nothing, "'meta' is not supported; use auto, cpu"),
    "device mps": (f"{TRAIN} --device mps", nothing, "'mps' is not supported; use auto, cpu"),
    "device 9": (f"{TRAIN} --device cuda:9", nothing, "'cuda:9' asked for, but"),
    "workspace is a file": (f"{TRAIN} --workspace {__file__}", nothing,
                            "cannot write in the workspace .*choose another folder"),
    "workspace nobody may write": (f"{TRAIN} --workspace /proc/x", nothing,
                                   "cannot write in the workspace /proc/x .*choose another folder"),
    "no such CSV": ("download nothing.csv", nothing, "nothing.csv"),
    # parameter files
    "file in Latin-1": (TRAIN, raw("dataset: synthetic # é".encode("latin-1")),
                        "mine.yaml is not YAML in UTF-8: .*save it as UTF-8"),
    "file in UTF-16": (TRAIN, raw("dataset: synthetic".encode("utf-16")),
                       "mine.yaml is not YAML in UTF-8: .*save it as UTF-8"),
    "key twice": (TRAIN, raw("dataset: synthetic\nseeds: [0]\nseeds: [1]"),
                  "mine.yaml .*'seeds' is there twice; keep one"),
    "5,000 lists": (TRAIN, raw("dataset: synthetic\nseeds: " + "[" * 5000 + "]" * 5000),
                    "mine.yaml is not YAML in UTF-8: .*recursion"),
    "no key": (TRAIN, raw("synthetic"), "mine.yaml: expected `key: value` lines with at least"),
    "seed of a file": (TRAIN, study(seeds=[-1]), r"mine.yaml: seeds\[0\] is -1; expected 0 or"),
    "infinite rate": (TRAIN, train(lr=math.inf), "mine.yaml: lr is inf; expected a finite number"),
    "negative decay": (TRAIN, train(lr_decay=-1), "mine.yaml: lr_decay is -1; expected"),
    "large decay": (TRAIN, train(layer_decay=5), "mine.yaml: layer_decay is 5; expected 1"),
    "huge images": (TRAIN, train(image_size=1000000), "image_size is 1000000; expected pixels"),
    "odd batch": (TRAIN, train(batch_size=3), "batch_size 3 is not a multiple of images_per_ident"),
    "people in words": (TRAIN, study(synthetic={"train_ids": "six"}), "train_ids is 'six'; expect"),
    "unknown backbone": (TRAIN, train(backbone="vit_tinny"), "unknown backbone 'vit_tinny'"),
    "loss of no module": (TRAIN, loss("nowhere.circle"),
                          "there is no module nowhere: neither .*nowhere.py nor an installed one"),
    "loss of no function": (TRAIN, loss("json.dump5"), "unknown function of .* 'dump5' .did you"),
    "loss of no weight": (TRAIN, loss("json.dumps", 0), "mine.yaml: loss.weight is 0; expected a"),
    "loss of one argument": (TRAIN, loss("json.dumps"), "loss dumps: too many positional .* what "
                                                        "the model gives, and the identities: 3 "),
    "loss of no tensor": (TRAIN, loss("heapq.merge"), "loss merge gives generator; expected a ten"),
    "no weights": (TRAIN, train(pretrained=True), "vit_tiny_patch16_224.*REIDLIB_WEIGHTS.*, get "
                   "model.safetensors of https://huggingface.co/timm/vit_t.* as vit_tiny_patch16"),
    "weights of no name": (REPORT, train(pretrained=True, backbone="vit_tiny_patch16_224.typo"),
                           "no weights for vit_tiny_patch16_224.typo: .*Put the file into that f"),
    "weights of no backbone": (REPORT, train(pretrained=True, backbone="vit_tinny"),
                               "unknown backbone 'vit_tinny': timm .*close: "),
    # what a finished study left
    "manifest lost lines": (EXPORT, cut("manifest.csv", 5), "manifest.csv.*run notebook 01_data"),
    "manifest is cut": (EXPORT, cut("manifest.csv"),
                        "manifest.csv is damaged.*run notebooks/01_data.ipynb again"),
    "study without seeds": (TRAIN, replaced("study.json", r'"seeds": \[[^]]*\]', '"seeds": []'),
                            "study.json is not a study .seeds is .*delete it"),
    "record is cut": (TRAIN, cut("run.json"), "run.json is not a run record .*delete"),
    "record without scores": (TRAIN, without("run.json", "scores"),
                              "run.json is not a run record .scores is missing.*delete"),
    "record of other scores": (TRAIN, replaced("run.json", r'"mAP": [\d.]+', '"mAP": 0.123'),
                               "run.json says mAP 0.123 .*per_query.csv says .*delete"),
    "record of other rates": (TRAIN, replaced("run.json", r'"lr": [\d.]+', '"lr": 0.5'),
                              "run.json is not a run record .fingerprint.*delete"),
    "queries lost": (TRAIN, cut("per_query.csv", 9), "run.json.* per_query.csv.*delete"),
    "half the weights": (EXPORT, half_the_weights, "weights.safetensors does not hold a model"),
    # data sets by name
    "no data folder": ("download pku-reid", nothing, "the data folder .*data does not exist: make "
                                                     "it, or set REIDLIB_DATA to one that does"),
    "CUHK03 in MATLAB files": ("download cuhk03-np", cuhk03("cuhk-03.mat", b"MATLAB 5.0 MAT-file"),
                               "MATLAB files.*cuhk-03.mat; get .*as labeled/.*0003_c1_1.png"),
    "CUHK03 in half a zip": ("download cuhk03-np", cuhk03("cuhk03-np.zip", b"PK"),
                             "cuhk03-np.zip is a damaged zip file .*download it again"),
    "CUHK03 under another name": (
        "download cuhk03-np", cuhk03("labeled/bounding_box_train/1_001_1_01.png", b""),
        "file names that are not like 0003_c1_1.png .*1_001_1_01.png; rename or remove"),
    # own data
    "CSV with semicolons": (CHECK, picture(with_semicolons),
                            "found path;id;cam;split; expected path, id, cam, split, with commas"),
    "few gallery images": ("download mine", own_study(perplexity=15), "only . gallery images for t-"
                                                                      "SNE: set `perplexity: 1`"),
    "NUL in a name": (CHECK, picture(with_nul), "with a NUL byte.*row 1 .'a1.png'.; write"),
    "link to itself": (CHECK, picture(in_a_circle),
                       "files that do not exist .*a1.png; .*a link must lead to a file"),
    "picture missing": (CHECK, picture(Path.unlink), "files that do not exist .*a1.png"),
    "picture of 0 bytes": (CHECK, picture(lambda path: path.write_bytes(b"")),
                           r"not complete images .*a1.png \(zero bytes\).*get them again"),
    # features of any model
    "no features": (SCORE, nothing, "mine.npz does not exist; expected an .npz with"),
    "feature not finite": (SCORE, features(features=np.full((4, 2), np.nan)), "of w is not fin"),
    "nobody is found": (SCORE, features(ids=np.arange(4)), "no protocol can be scored.*all-gall"),
    "other gallery": (f"{SCORE} --against DATA/other.npz", features(), r"\(2\): gallery t of iden"),
    "no folder to write": (f"{SCORE} --out DATA/new/a.md", features(), "no folder .*new to write"),
    # photos
    "no model": (f"{RANK}photos", photos(lambda at: (at.parent / "model.safetensors").unlink()),
                 "no weights at .*model.safetensors: `make weights` and finished runs write such"),
    "a folder as a model": (RANK.replace("model.safetensors", "photos"), photos(Path.exists),
                            "no weights at .*photos: it is a folder; name a .safetensors file"),
    "a picture as a model": (RANK.replace("model.safetensors", "photos/a.png"), photos(Path.exists),
                             "a.png does not hold a model of reidlib"),
    "no photos": (f"{RANK}none", photos(lambda at: (at.parent / "none").mkdir()),
                  "none has no images; expected files that end in"),
}


def no_network(*args, **kwargs):
    raise OSError("no route to host")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study ``mine`` with all its runs, and its parameter file."""
    root = tmp_path_factory.mktemp("finished")
    (root / "params").mkdir()
    (root / "params" / "mine.yaml").write_text(yaml.safe_dump(SMALL))
    run_all(load_study("mine", params=root / "params"), root / "results", "cpu")
    return root


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """A copy of it to break, which the command line takes for its own."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    params = tmp_path / "params"
    for module in ("study", "prepare", "runner"):
        monkeypatch.setattr(f"reidlib.experiments.{module}.load_study",
                            partial(load_study, params=params))
    monkeypatch.setattr("reidlib.cli.study_names", lambda: ["mine"])
    monkeypatch.setenv("REIDLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REIDLIB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("timm.models._builder.load_pretrained", no_network)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("REIDLIB_HEADLESS", "1")
    return Place(params, tmp_path / "data", Workspace("mine", tmp_path / "results"))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_ends_in_one_line_that_says_what_to_do(fault, place, capsys):
    command, make, message, code = (*fault, 1)[:4]
    make(place)
    words = command.replace("DATA", str(place.data)).split()
    if "--workspace" not in words and words[0] not in ("download", "score", "rank"):
        words += ["--workspace", str(place.workspace.root)]
    assert cli.main(words) == code
    said = capsys.readouterr().err
    assert re.search(message, said, re.S) and "Traceback" not in said
    assert code == 2 or re.fullmatch(r"error: [^\n]+\n", said)


def test_without_a_fault_the_same_commands_end_well(place, capsys):
    picture(Path.exists)(place)
    for command in (TRAIN, EXPORT):
        assert cli.main([*command.split(), "--workspace", str(place.workspace.root)]) == 0
    assert cli.main(CHECK.replace("DATA", str(place.data)).split()) == 0
    features()(place)
    photos(Path.exists)(place)
    for command in (SCORE, f"{RANK}photos --html DATA/page.html"):
        assert cli.main(command.replace("DATA", str(place.data)).split()) == 0
    own_study(perplexity=1)(place)
    assert cli.main(["download", "mine"]) == 0
    assert not capsys.readouterr().err
