"""A study file is checked before anything runs; a saved study is read back as it was."""

from dataclasses import replace

import pytest

from reidlib.evaluation.protocols import PROTOCOLS
from reidlib.experiments.presets import PAPER_PRESETS
from reidlib.experiments.study import load_study, read_study, write_study
from reidlib.utils.paths import PARAMS, Workspace

STUDIES = sorted(path.stem for path in PARAMS.glob("*.yaml"))


@pytest.fixture
def load(tmp_path):
    """The study of a file with these lines."""

    def load(text, **changes):
        (tmp_path / "mine.yaml").write_text(text)
        return load_study("mine", params=tmp_path, **changes)

    return load


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_loads(name):
    study = load_study(name)
    assert study.name == name and study.config("baseline", 0).epochs > 0


def test_epochs_and_seeds_replace_the_files():
    study = load_study("pku-reid", epochs=5, seeds=[4])
    assert study.seeds == (4,) and study.config("baseline", 4).epochs == 5
    assert study.config("baseline", 4).backbone_lr == load_study("pku-reid").train["backbone_lr"]


def test_a_study_runs_its_presets_and_candidates_or_the_papers_rows(load):
    assert load("dataset: synthetic").all_presets == PAPER_PRESETS
    assert load("dataset: synthetic\npresets: [best]\ncandidates: {quick: {epochs: 2}}"
                ).all_presets == ("best", "quick")
    assert not load("dataset: synthetic").is_own_data and load("dataset: a/b.csv").is_own_data


def test_candidates_are_presets_of_their_study(load):
    study = load("dataset: synthetic\ntrain: {epochs: 3, lr: 0.5}\n"
                 "candidates: {quick: {lr: 1e-4}}\n")
    config = study.config("quick", 1)
    assert (config.run_id, config.epochs, config.lr) == ("quick-s1", 3, 1e-4)
    assert study.config("baseline", 1).lr == 0.5


def test_a_file_with_the_former_name_of_a_parameter_is_the_same_study(load):
    lines = "dataset: synthetic\ntrain: {NAME: 2.0}\ncandidates: {low: {NAME: 1.0}}"
    for name in ("global_weight", "local_weight"):
        study = load(lines.replace("NAME", name))
        assert study.config("baseline", 0).local_weight == 2.0
        assert study.config("low", 0).local_weight == 1.0


@pytest.mark.parametrize("text, message", [
    ("", "mine.yaml: expected `key: value` lines with at least `dataset: name`"),
    ('dataset: "a\\0b"', r"^mine.yaml: dataset is 'a.x00b'; expected a name or the path of a CSV"),
    ("seeds: [1]", "with at least `dataset: name`"),
    ("dataset: [x", "mine.yaml is not YAML"),
    ("dataset: x\nchecksum: y", "unknown key in mine.yaml 'checksum'; known: dataset, seeds"),
    ("dataset: x\nsedes: [1]", r"unknown key in mine.yaml 'sedes' \(did you mean 'seeds'\?\)"),
    ("dataset: x\ndataset: y", "mine.yaml is not YAML in UTF-8: 'dataset' is there twice"),
    ("dataset: x\ntrain: {lr: 1, lr: 2}", "'lr' is there twice; keep one"),
    ("dataset: x\ncandidates:\n  a: {lr: 1}\n  a: {}", "'a' is there twice; keep one"),
])
def test_a_file_that_is_no_study_is_refused(load, text, message):
    with pytest.raises(ValueError, match=message):
        load(text)


@pytest.mark.parametrize("content, reason", [
    ("dataset: Jörg\n".encode("latin-1"), "can't decode byte 0xf6"),
    ("dataset: x\n".encode("utf-16"), "can't decode byte 0xff"),
    (b"dataset: " + b"[" * 5000, "recursion"), (b"dataset: [x\nseeds: [", "line 2, column 6")])
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, content, reason):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=f"^mine.yaml is not YAML in UTF-8: .*{reason}.*; correct "
                       "it, or save it as UTF-8$"):
        load_study("mine", params=tmp_path)


def test_what_a_preset_says_itself_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "dataset: synthetic\ntrain: {backbone_lr: 1.0e-5, epochs: 6}\npresets: [best, transreid]\n"
        "candidates: {long: {preset: transreid, epochs: 9}}")
    study = load_study("mine", params=tmp_path)
    assert study.overruled("baseline") == [] and study.overruled("best") == ["backbone_lr"]
    assert study.overruled("long") == ["backbone_lr", "epochs"]


@pytest.mark.parametrize("line, message", [
    ("train: {image_size: 1000000}",
     "mine.yaml: image_size is 1000000; expected pixels from 1 to 2048: one number for a square, "
     "or [height, width]"),
    ("seeds: []", "mine.yaml: seeds is []; expected a list that is not empty"),
    ("seeds: 3", "mine.yaml: seeds is 3; expected a list"),
    ("seeds: [1, 1]", "mine.yaml: seeds are [1, 1]; expected different ones"),
    ("seeds: [-1]", "mine.yaml: seeds[0] is -1; expected 0 or more"),
    ("seeds: [0, 4294967296]",
     "mine.yaml: seeds[1] is 4294967296; expected a number below 4294967296"),
    ("seeds: [true]", "mine.yaml: seeds[0] is True; expected a whole number"),
    ("train: [1]", "mine.yaml: train is [1]; expected `key: value` lines"),
    ("train: {epochs: -2}", "mine.yaml: epochs is -2; expected 0 or more"),
    ("train: {batch_size: 30}",
     "mine.yaml: batch_size 30 is not a multiple of images_per_identity 4 (preset amtriplet has "
     "am_margin: 0.35, triplet_margin: 0.3, images_per_identity: 4; a candidate with `preset: "
     "amtriplet` can change that)"),
    ("train: {y_pooling: true}", "mine.yaml: y_pooling is what the presets differ in, so a study "
     "cannot set it for all of them; change reidlib.experiments.presets.PRESETS"),
    ("perplexity: abc", "mine.yaml: perplexity is 'abc'; expected a number"),
    ("perplexity: .inf", "mine.yaml: perplexity is inf; expected a finite number"),
    ("perplexity: true", "mine.yaml: perplexity is True; expected a number"),
    ("shows_people: 1", "mine.yaml: shows_people is 1; expected true or false"),
    ("folds: six", "mine.yaml: folds is 'six'; expected a whole number"),
    ("folds: 1", "mine.yaml: folds is 1 and fold None; expected 2 folds or more, numbered from 0"),
    ("{folds: 2, fold: 2}",
     "mine.yaml: folds is 2 and fold 2; expected 2 folds or more, numbered from 0"),
    ("fold: [0]", "mine.yaml: fold is [0]; expected a whole number"),
    ("fold: 0", "mine.yaml: fold is 0 and people all, but there are no folds; set folds, or leave "
                "them out"),
    ("people: train", "mine.yaml: fold is None and people train, but there are no folds; set "
                      "folds, or leave them out"),
    ("{folds: 2, people: everybody}",
     "mine.yaml: people is 'everybody'; expected 'all' or 'train'"),
    ("presets: baseline", "mine.yaml: presets is 'baseline'; expected a list"),
    ("presets: [best, best]", "mine.yaml: presets are ['best', 'best']; expected different ones"),
    ("presets: [a/b]", "mine.yaml: 'a/b' is not a name for a preset or candidate; expected "
                       "letters, digits, _, - and ."),
    ("candidates: [a]", "mine.yaml: candidates is ['a']; expected `key: value` lines"),
    ("candidates: {a: 3}", "mine.yaml: candidates.a is 3; expected `key: value` lines"),
    ("candidates: {best: {}}", "mine.yaml: candidate best is {}; expected a name that no preset "
                               "has"),
    ("protocols: [standart]", "mine.yaml: unknown protocol 'standart' (did you mean 'standard'?); "
                              "known: " + ", ".join(PROTOCOLS)),
    ("flips: []", "mine.yaml: flips is []; expected a list that is not empty"),
])
def test_a_bad_value_of_a_study_is_named_with_what_was_expected(load, line, message):
    text = f"{{dataset: x, {line[1:]}" if line.startswith("{") else f"dataset: x\n{line}"
    with pytest.raises(ValueError) as caught:
        load(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("line, message", [
    ("presets: [basline]", "unknown preset 'basline' .did you mean 'baseline'"),
    ("train: {epoch: 3}", "unknown training parameter 'epoch' .did you mean 'epochs'"),
    ("candidates: {a: {epoch: 3}}", "unknown training parameter 'epoch' .did you mean 'epochs'")])
def test_unknown_names_in_a_study_come_with_the_nearest_known_one(load, line, message):
    with pytest.raises(ValueError, match=f"^mine.yaml: {message}"):
        load(f"dataset: x\n{line}")


def test_an_unknown_study_comes_with_the_known_ones():
    for name in ("pku", "../params/pku-reid"):
        with pytest.raises(ValueError, match=f"unknown study '{name}'.*known: .*pku-reid"):
            load_study(name)


def test_a_saved_study_is_read_back_as_it_was(tmp_path):
    workspace = Workspace("smoke", tmp_path)
    study = replace(load_study("smoke"), checksum="data")
    write_study(study, workspace)
    assert read_study(workspace) == study


def test_a_saved_study_that_is_missing_or_damaged_says_what_to_do(tmp_path):
    workspace = Workspace("smoke", tmp_path)
    with pytest.raises(FileNotFoundError, match="run notebook 01_data for study 'smoke' first"):
        read_study(workspace)
    write_study(load_study("smoke"), workspace)
    path = workspace.reports / "study.json"
    for text, reason in ((path.read_text()[:40], "Unterminated|Expecting"),
                         (path.read_text().replace('"seeds"', '"sedes"'), "unknown .*'sedes'"),
                         (path.read_text().replace("5.0", "true"), "perplexity is True; expected"),
                         (path.read_text().replace("[\n  0\n ]", "[]"), "seeds is ..; expected"),
                         ("[" * 10**5, "recursion"), ("[]", "mapping")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"study.json is not a study .*({reason}).*delete it"):
            read_study(workspace)
        write_study(load_study("smoke"), workspace)
