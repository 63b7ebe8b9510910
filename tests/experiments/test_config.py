"""A run is one frozen configuration: its defaults, its fingerprint, the values it refuses."""

from dataclasses import FrozenInstanceError, asdict, replace
from math import inf, nan

import pytest
import yaml

from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import PRESETS, make_config
from reidlib.experiments.records import read_run
from reidlib.experiments.study import read_study
from reidlib.utils.paths import ROOT, Workspace

TRACKED = sorted(path.parent.relative_to(ROOT / "reports").as_posix()
                 for path in (ROOT / "reports").glob("**/study.json"))


def test_defaults_stay_for_they_are_part_of_every_old_fingerprint():
    """A new field needs a line here; a changed default would give old results a new meaning."""
    assert asdict(TrainConfig()) == {
        "preset": "baseline", "seed": 0, "model": "la-transformer",
        "backbone": "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "backbone_args": {},
        "pretrained": True, "image_size": 224, "stride": None, "y_pooling": False,
        "local_weight": 8.0, "feature": "mixed", "dropout": 0.5, "side_information": False,
        "am_margin": None,
        "am_scale": 30.0, "angular": None, "angular_margin": 2, "triplet_margin": None,
        "triplet_on": "unit", "part_mean": False,
        "loss": None, "momentum": None, "epochs": 30,
        "batch_size": 32, "images_per_identity": None, "lr": 3e-4, "backbone_lr": 3e-4,
        "scale_lr": None, "weight_decay": 5e-4, "schedule": "blockwise",
        "release_every": 2,
        "lr_decay": 0.8, "release": "paper", "warmup_epochs": None, "layer_decay": 1.0,
        "label_smoothing": 0.0, "random_erasing": 0.0, "pad": 0, "clip_norm": None,
        "ema_decay": None, "members": 1, "validation_ids": 0,
        "precision": "fp32", "accumulate": 1, "compiled": False, "deterministic": False}


def test_a_configuration_is_frozen_and_a_changed_copy_is_checked():
    config = TrainConfig()
    with pytest.raises(FrozenInstanceError):
        config.lr = 1.0
    assert replace(config, lr=1).lr == 1.0 and config.lr == 3e-4
    with pytest.raises(ValueError, match="lr"):
        replace(config, lr=-1)


def test_fingerprint_follows_configuration_and_data():
    config = TrainConfig()
    prints = {config.fingerprint("a"), config.fingerprint("b"), replace(config, seed=1)
              .fingerprint("a"), replace(config, backbone_args={"depth": 3}).fingerprint("a"),
              replace(config, local_weight=9.0).fingerprint("a")}
    assert len(prints) == 5 and config.fingerprint("a") == TrainConfig().fingerprint("a")


@pytest.mark.parametrize("study", TRACKED)
def test_fingerprints_of_tracked_runs_are_what_they_were(study):
    """From the record's configuration, and from the study's; some have the former names."""
    workspace = Workspace(study)
    config_of, folders = read_study(workspace).config, sorted(workspace.runs.glob("*/"))
    assert folders
    for record in map(read_run, folders):
        checksum, expected = record["data"]["checksum"], record["fingerprint"]
        assert TrainConfig(**record["config"]).fingerprint(checksum) == expected
        assert config_of(record["preset"], record["seed"]).fingerprint(checksum) == expected


def test_the_former_name_of_a_parameter_is_still_read():
    config = make_config("baseline", overrides={"global_weight": 2.0})
    assert config == make_config("baseline", overrides={"local_weight": 2.0})
    assert config.local_weight == 2.0 != TrainConfig().local_weight
    candidate = make_config("mine", candidates={"mine": {"global_weight": 2.0}})
    assert candidate.local_weight == 2.0


@pytest.mark.parametrize("changes, message", [
    ("feature: globl", "feature is 'globl'; expected 'mixed', 'local' or 'neck'"),
    ("schedule: step", "schedule is 'step'; expected 'blockwise' or 'end-to-end'"),
    ("precision: fp8", "precision is 'fp8'; expected 'fp32' or 'bf16'"),
    ("epochs: -1", "epochs is -1; expected 0 or more"),
    ("epochs: many", "epochs is 'many'; expected a whole number"),
    ("epochs: 1.5", "epochs is 1.5; expected a whole number"),
    ("epochs: true", "epochs is True; expected a whole number"),
    ("lr: 0.0", "lr is 0.0; expected a number above 0"),
    ("lr: fast", "lr is 'fast'; expected a number"),
    ("lr: true", "lr is True; expected a number"),
    ("lr: .nan", "lr is nan; expected a finite number"),
    ("lr_decay: -1", "lr_decay is -1; expected a number above 0"),
    ("lr_decay: .nan", "lr_decay is nan; expected a finite number"),
    ("lr_decay: .inf", "lr_decay is inf; expected a finite number"),
    ("lr_decay: 1.5", "lr_decay is 1.5; expected 1 or less"),
    ("layer_decay: 0.0", "layer_decay is 0.0; expected a number above 0"),
    ("layer_decay: 5", "layer_decay is 5; expected 1 or less"),
    ("pretrained: 'no'", "pretrained is 'no'; expected true or false"),
    ("compiled: 1", "compiled is 1; expected true or false"),
    ("backbone: 3", "backbone is 3; expected text"),
    ("backbone_args: [1]", "backbone_args is [1]; expected `key: value` lines"),
    ("image_size: 4096", "image_size is 4096; expected pixels from 1 to 2048: one number for a "
                         "square, or [height, width]"),
    ("image_size: [256, 128, 3]", "image_size is [256, 128, 3]; expected pixels from 1 to 2048: "
                                  "one number for a square, or [height, width]"),
    ("image_size: '224'", "image_size is '224'; expected pixels from 1 to 2048: one number for a "
                          "square, or [height, width]"),
    ("{model: transreid, images_per_identity: 4, feature: neck}",
     "feature is 'neck', which only la-transformer has, and model is transreid; leave one of them "
     "out"),
    ("side_information: true", "side_information is True, which only transreid has, and model is "
                               "la-transformer; leave one of them out"),
    ("angular: l-softmx", "angular is 'l-softmx'; expected 'a-softmax' or 'l-softmax'"),
    ("{angular: a-softmax, angular_margin: 0}", "angular_margin is 0; expected 1 or more"),
    ("{angular: a-softmax, angular_margin: 1.5}", "angular_margin is 1.5; expected a whole number"),
    ("{angular: a-softmax, am_margin: 0.35}", "am_margin is 0.35 and angular is 'a-softmax', which "
                                              "are two margins; leave one of them out"),
    ("{model: transreid, images_per_identity: 4, angular: l-softmax}",
     "angular is 'l-softmax', which only la-transformer has, and model is transreid; leave one of "
     "them out"),
    ("model: aligned-reid", "model aligned-reid has a triplet loss and images_per_identity is "
                            "None; set it to 2 or more"),
    ("model: deep-cosine", "model deep-cosine with schedule blockwise, which releases the blocks "
                           "of la-transformer; use schedule: end-to-end"),
    ("{model: deep-cosine, schedule: end-to-end, image_size: [128, 64], pretrained: false, "
     "stride: 8}", "stride is 8 and model deep-cosine, which has no patches; leave stride out"),
    ("{model: deep-cosine, schedule: end-to-end}",
     "model deep-cosine with image_size 224 and pretrained True; it takes image_size: [128, 64] "
     "and pretrained: false"),
    ("preset: transread", "unknown preset of mine 'transread' (did you mean 'transreid'?); known: "
                          + ", ".join(PRESETS)),
    ("batch_size: 1", "batch_size is 1; expected 2 or more"),
    ("local_weight: -1.0", "local_weight is -1.0; expected 0 or more"),
    ("ema_decay: 1.5", "ema_decay is 1.5; expected a number below 1"),
    ("ema_decay: 1.0", "ema_decay is 1.0; expected a number below 1"),
    ("{members: 3, pretrained: false}", "members is 3 and pretrained is false: the mean of models "
                                        "that start at random is none; leave members out"),
    ("{members: 3, validation_ids: 2}", "members is 3 and validation_ids 2: each member would "
                                       "hold out other identities; leave one of them out"),
    ("{members: 3, feature: neck}", "members is 3 with model la-transformer, feature neck, "
                                    "side_information False: retrieval takes layers that start at "
                                    "random, whose mean is none; leave members out"),
    ("{members: 3, model: aligned-reid, images_per_identity: 4, schedule: end-to-end}",
     "members is 3 with model aligned-reid, feature mixed, side_information False: retrieval takes "
     "layers that start at random, whose mean is none; leave members out"),
    ("{release: public-code, schedule: end-to-end}", "release is public-code but schedule is "
                                                     "end-to-end, which freezes nothing; leave "
                                                     "release out"),
    ("label_smoothing: -0.1", "label_smoothing is -0.1; expected 0 or more"),
    ("label_smoothing: 1.1", "label_smoothing is 1.1; expected 1 or less"),
    ("clip_norm: 0.0", "clip_norm is 0.0; expected a number above 0"),
    ("am_margin: .inf", "am_margin is inf; expected a finite number"),
    ("images_per_identity: 0", "images_per_identity is 0; expected 1 or more"),
    ("validation_ids: 1", "validation_ids is 1; a score needs 2 or more identities, or 0 for no "
                          "validation"),
    ("triplet_margin: 0.3", "triplet_margin is 0.3 but images_per_identity is None: triplets need "
                            "at least 2 images of an identity in a batch; set images_per_identity "
                            "to 2 or more"),
    ("images_per_identity: 5", "batch_size 32 is not a multiple of images_per_identity 5"),
    ("warmup_epochs: 2", "warmup_epochs is 2.0 but schedule is blockwise, which sets the learning "
                         "rates itself; use schedule: end-to-end"),
    ("{warmup_epochs: 31, schedule: end-to-end}",
     "warmup_epochs is 31.0; it must be between 0 and epochs, 30"),
    ("accumulate: 3", "accumulate is 3: batch_size 32 cannot be split into so many equal parts of "
                      "2 or more"),
    ("{accumulate: 8, images_per_identity: 4}", "accumulate is 8: batch_size 32 cannot be split "
                                                "into so many equal parts of 8 or more"),
    ("{epochs: many, lr: -1}", "epochs is 'many'; expected a whole number; lr is -1; expected a "
                               "number above 0"),
])
def test_a_bad_value_is_named_with_what_was_expected(changes, message):
    with pytest.raises(ValueError) as caught:
        make_config("mine", candidates={"mine": yaml.safe_load(changes)})
    assert str(caught.value) == message


@pytest.mark.parametrize("seed", [-1, 2 ** 32, True])
def test_seeds_are_what_numpy_takes(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}; expected "):
        make_config("baseline", seed)
    assert make_config("baseline", 2 ** 32 - 1).seed == 2 ** 32 - 1


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_no_number_is_infinite(value):
    for name, default in asdict(TrainConfig()).items():
        if isinstance(default, float):
            with pytest.raises(ValueError, match=f"{name} is {value}; expected a finite number"):
                make_config("mine", candidates={"mine": {name: value}})


def test_numbers_as_yaml_reads_them():
    config = make_config("baseline", overrides=yaml.safe_load("{lr: 3e-4, am_scale: 15}"))
    assert config.lr == 3e-4 and config.am_scale == 15.0 and type(config.am_scale) is float
