from dataclasses import asdict, replace

import pytest

from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import PRESETS, RESULT_ROWS, SAME_RATE, SINGLE_IDEAS, make_config
from reidlib.experiments.study import load_study
from reidlib.utils.paths import PARAMS

STUDIES = sorted(path.stem for path in PARAMS.glob("*.yaml"))


def write_study(folder, text):
    (folder / "mine.yaml").write_text(text)
    return folder


def test_baseline_is_the_papers():
    config = make_config("baseline")
    assert config == TrainConfig() and config.global_weight == 8 and config.schedule == "blockwise"
    assert (config.epochs, config.batch_size) == (30, 32)
    assert (config.lr, config.weight_decay) == (3e-4, 5e-4)


def test_presets_are_differences_on_top_of_the_study():
    config = make_config("improved", 3, {"epochs": 7, "lr": 0.1})
    assert (config.epochs, config.lr, config.y_pooling, config.run_id) == (7, 0.1, True,
                                                                          "improved-s3")
    assert make_config("untrained", 0, {"epochs": 7}).epochs == 0


def test_every_results_row_has_its_preset():
    assert {v.preset for v in (*RESULT_ROWS, *SINGLE_IDEAS, *SAME_RATE)} == set(PRESETS)
    for variant in SAME_RATE:
        name = variant.preset.removesuffix("-1e-4")
        assert PRESETS[variant.preset] == {**PRESETS[name],
                                           "backbone_lr": PRESETS["best"]["backbone_lr"]}


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_loads(name):
    study = load_study(name)
    assert study.name == name and study.config("baseline", 0).epochs > 0


def test_epochs_and_seeds_replace_the_files():
    study = load_study("pku-reid", epochs=5, seeds=[4])
    assert study.seeds == (4,) and study.config("baseline", 4).epochs == 5
    assert study.config("baseline", 4).backbone_lr == load_study("pku-reid").train["backbone_lr"]


def test_fingerprint_follows_configuration_and_data():
    config = TrainConfig()
    prints = {config.fingerprint("a"), config.fingerprint("b"), replace(config, seed=1)
              .fingerprint("a"), replace(config, backbone_args={"depth": 3}).fingerprint("a")}
    assert len(prints) == 4 and config.fingerprint("a") == TrainConfig().fingerprint("a")


def test_defaults_stay_for_they_are_part_of_every_old_fingerprint():
    """A new field needs a line here; a changed default would give old results a new meaning."""
    assert asdict(TrainConfig()) == {
        "preset": "baseline", "seed": 0,
        "backbone": "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "backbone_args": {},
        "pretrained": True, "image_size": 224, "y_pooling": False, "global_weight": 8.0,
        "feature": "mixed", "am_margin": None, "am_scale": 30.0, "triplet_margin": None,
        "epochs": 30, "batch_size": 32, "images_per_identity": None, "lr": 3e-4,
        "backbone_lr": 3e-4, "weight_decay": 5e-4, "schedule": "blockwise", "release_every": 2,
        "lr_decay": 0.8, "warmup_epochs": None, "layer_decay": 1.0, "label_smoothing": 0.0,
        "random_erasing": 0.0, "clip_norm": None, "ema_decay": None, "validation_ids": 0,
        "precision": "fp32", "accumulate": 1, "compiled": False, "deterministic": False}


@pytest.mark.parametrize("changes, message", [
    ({"feature": "globl"}, "unknown feature 'globl'"),
    ({"schedule": "step"}, "unknown schedule 'step'; known: blockwise, end-to-end"),
    ({"epochs": -1}, "epochs is -1"),
    ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
    ({"batch_size": 1}, "batch normalisation needs 2 or more"),
    ({"global_weight": -1.0}, "global_weight is -1.0; it must be 0 or more"),
    ({"triplet_margin": 0.3}, "images_per_identity is None.*2 or more"),
    ({"images_per_identity": 5}, "batch_size 32 is not a multiple"),
    ({"precision": "fp8"}, "unknown precision 'fp8'; known: fp32, bf16"),
    ({"ema_decay": 1.5}, "ema_decay is 1.5; it must be from 0 to below 1"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be from 0 to below 1"),
    ({"label_smoothing": -0.1}, "label_smoothing is -0.1; it must be between 0 and 1"),
    ({"clip_norm": 0.0}, "clip_norm is 0.0; it must be above 0, or nothing"),
    ({"layer_decay": 0.0}, "layer_decay is 0.0; it must be above 0"),
    ({"validation_ids": 1}, "validation_ids is 1; a score needs 2 or more identities"),
    ({"warmup_epochs": 2.0}, "schedule is blockwise, which sets the learning rates itself"),
    ({"warmup_epochs": 31.0, "schedule": "end-to-end"}, "between 0 and epochs, 30"),
    ({"accumulate": 3}, "accumulate is 3: batch_size 32 cannot be worked off in so many equal"),
    ({"accumulate": 8, "images_per_identity": 4}, "equal parts of 8 or more"),
])
def test_values_that_cannot_be_run_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TrainConfig(), **changes)


@pytest.mark.parametrize("changes, message", [
    ({"epochs": "many"}, "epochs is 'many'; expected int"),
    ({"epochs": 1.5}, "epochs is 1.5; expected int"),
    ({"pretrained": "no"}, "pretrained is 'no'; expected bool"),
    ({"lr": "fast"}, "lr is 'fast'; expected float"),
    ({"seed": 5}, "unknown training parameter 'seed'"),
    ({"am_margin": 0.2}, "am_margin is what the presets differ in"),
])
def test_wrong_types_and_presets_own_keys_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_config("baseline", overrides=changes)


def test_numbers_as_yaml_reads_them():
    assert make_config("baseline", overrides={"lr": "3e-4", "am_scale": 15}).lr == 3e-4


def test_unknown_names_say_what_is_known(tmp_path):
    with pytest.raises(ValueError, match=r"unknown preset 'improve' \(did you mean 'improved'\?\)"):
        make_config("improve")
    with pytest.raises(ValueError, match=r"unknown training parameter 'epoch'.*'epochs'"):
        make_config("baseline", overrides={"epoch": 3})
    with pytest.raises(ValueError, match="unknown study 'pku'.*known: .*pku-reid"):
        load_study("pku")
    with pytest.raises(ValueError, match=r"unknown key in mine.yaml 'sedes' \(did you mean"):
        load_study("mine", params=write_study(tmp_path, "dataset: pku-reid\nsedes: [1]"))


@pytest.mark.parametrize("text, message", [
    ("", "mine.yaml: expected `key: value` lines"),
    ("seeds: [1]", "with at least `dataset: name`"),
    ("dataset: [x", "mine.yaml is no YAML"),
    ("dataset: x\ntrain: [1]", r"train is \[1\]; expected `key: value` lines"),
    ("dataset: x\nchecksum: y", "unknown key in mine.yaml 'checksum'"),
    ("dataset: x\nseeds: []", "expected different whole numbers"),
    ("dataset: x\nperplexity: abc", "perplexity is 'abc'; expected a number"),
    ("dataset: x\nseeds: [1, 1]", "expected different whole numbers"),
    ("dataset: x\ntrain: {epochs: -2}", "epochs is -2"),
    ("dataset: x\ntrain: {batch_size: 30}", "batch_size 30 is not a multiple"),
])
def test_a_study_file_is_checked_before_anything_runs(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_study("mine", params=write_study(tmp_path, text))


@pytest.mark.parametrize("line, message", [
    ("folds: six", "mine.yaml: folds is 'six'; expected a whole number"),
    ("fold: [0]", r"fold is \[0\]; expected a whole number"),
    ("presets: baseline", "presets is 'baseline'; expected a list of presets"),
    ("presets: [basline]", "unknown preset 'basline' .did you mean 'baseline'"),
    ("people: everybody", "unknown people in mine.yaml 'everybody'; known: all, train"),
    ("candidates: [a]", "candidates is .*expected `key: value` lines"),
    ("candidates: {a: 3}", "candidate a is 3; expected a name that no preset has"),
    ("candidates: {best: {}}", "candidate best is {}; expected a name that no preset has"),
    ("candidates: {a: {epoch: 3}}", "unknown training parameter 'epoch' .did you mean 'epochs'")])
def test_bad_keys_of_a_study_beside_another(tmp_path, line, message):
    write_study(tmp_path, f"dataset: synthetic\n{line}\n")
    with pytest.raises(ValueError, match=message):
        load_study("mine", params=tmp_path)


def test_candidates_are_presets_of_their_study(tmp_path):
    write_study(tmp_path, "dataset: synthetic\ntrain: {epochs: 3, lr: 0.5}\n"
                "candidates: {quick: {lr: 1e-4}}\n")
    study = load_study("mine", params=tmp_path)
    config = study.config("quick", 1)
    assert (config.run_id, config.epochs, config.lr) == ("quick-s1", 3, 1e-4)
    assert study.config("baseline", 1).lr == 0.5
