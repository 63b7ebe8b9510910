"""Presets are differences from the paper's baseline, on top of the study."""

import pytest

from reidlib.experiments import presets
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import PRESETS, make_config
from reidlib.utils.paths import ROOT

ROWS = (*presets.RESULT_ROWS, *presets.SINGLE_IDEAS, *presets.SAME_RATE)


def test_baseline_is_the_papers():
    config = make_config("baseline")
    assert config == TrainConfig() and config.local_weight == 8 and config.schedule == "blockwise"
    assert (config.epochs, config.batch_size) == (30, 32)
    assert (config.lr, config.weight_decay) == (3e-4, 5e-4)


def test_presets_are_differences_on_top_of_the_study():
    config = make_config("improved", 3, {"epochs": 7, "lr": 0.1})
    assert (config.epochs, config.lr, config.y_pooling, config.run_id) == (7, 0.1, True,
                                                                          "improved-s3")
    assert make_config("untrained", 0, {"epochs": 7}).epochs == 0


def test_every_result_row_has_its_preset_and_every_preset_its_row():
    systems = {name for name, changes in PRESETS.items() if "model" in changes}
    assert {row.preset for row in ROWS} == set(PRESETS) - systems
    for row in presets.SAME_RATE:
        name = row.preset.removesuffix("-1e-4")
        assert PRESETS[row.preset] == {**PRESETS[name],
                                       "backbone_lr": PRESETS["best"]["backbone_lr"]}


def test_rows_are_named_in_the_fields_words():
    assert [row.label for row in presets.RESULT_ROWS] == [
        "not fine-tuned", "baseline", "+ y-pooling", "+ AM-Softmax, triplet", "+ flipped query",
        "+ re-ranking, each query alone", "+ re-ranking", "best",
        "best, re-ranking, each query alone", "best, re-ranking"]
    assert presets.RESULT_ROWS[:7] == presets.CUMULATIVE
    assert presets.RESULT_ROWS[0].preset == "untrained"  # as tracked files name it


def test_every_preset_of_a_notebook_has_one_that_trains_it():
    assert set(presets.NOTEBOOKS) == {row.preset for row in presets.RESULT_ROWS} | {"amtriplet"}
    for name in presets.NOTEBOOKS.values():
        assert (ROOT / "notebooks" / f"{name}.ipynb").is_file()


def test_unknown_names_come_with_the_nearest_known_one():
    with pytest.raises(ValueError, match=r"unknown preset 'improve' \(did you mean 'improved'\?\)"):
        make_config("improve")
    for given in ({"overrides": {"epoch": 3}}, {"candidates": {"baseline": {"epoch": 3}}}):
        with pytest.raises(ValueError, match=r"unknown training parameter 'epoch' \(did you mean "
                                             r"'epochs'\?\)"):
            make_config("baseline", **given)
    with pytest.raises(ValueError, match="unknown training parameter 'seed'"):
        make_config("baseline", overrides={"seed": 5})


@pytest.mark.parametrize("idea", presets.IDEAS)
def test_a_study_cannot_set_what_the_presets_differ_in(idea):
    with pytest.raises(ValueError, match=f"^{idea} is what the presets differ in"):
        make_config("baseline", overrides={idea: 1})


def test_an_error_says_what_the_preset_itself_sets():
    with pytest.raises(ValueError, match=r"batch_size 3 is not a multiple of images_per_identity 4 "
                                         r"\(preset improved has .*images_per_identity: 4"):
        make_config("improved", overrides={"batch_size": 3})
