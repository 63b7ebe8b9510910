"""A study with a loss of the user's own: found, hashed, trained with, refused by name."""

import hashlib
import json
import sys
from dataclasses import asdict, replace

import pytest
import torch
from pytorch_metric_learning.losses import CircleLoss

from reidlib.experiments import batch, own_loss, runner
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.prepare import saved_or_new
from reidlib.experiments.presets import make_config
from reidlib.experiments.records import read_run, read_tables
from reidlib.experiments.runner import Experiment
from reidlib.experiments.study import load_study, read_study
from reidlib.experiments.train import build_loss, check_starts
from reidlib.training import loop
from reidlib.utils.paths import PARAMS, Workspace

CIRCLE = """
from pytorch_metric_learning.losses import CircleLoss

metric = CircleLoss()


def circle(logits, embedding, ids):
    return metric(embedding, ids)
"""
CANDIDATES = ("candidates:\n"
              "  plain: {images_per_identity: 4}\n"
              "  circle: {images_per_identity: 4, loss: {function: mine.circle, weight: 0.1}}\n")


@pytest.fixture
def params(tmp_path, monkeypatch):
    """The folder of parameter files, with a study ``small`` and a module ``mine``."""
    folder = tmp_path / "params"
    folder.mkdir()
    text = (PARAMS / "smoke.yaml").read_text().partition("presets:")
    rest = text[2].partition("\n")[2].replace("image_size: 64", "image_size: 32")
    (folder / "small.yaml").write_text(text[0] + rest + CANDIDATES)
    (folder / "mine.py").write_text(CIRCLE)
    monkeypatch.setattr(own_loss, "PARAMS", folder)
    monkeypatch.setattr("reidlib.experiments.prepare.load_study",
                        lambda name: load_study(name, params=folder))
    return folder


def config_of(function, weight=1.0):
    return make_config("mine", candidates={"mine": {"loss": {"function": function,
                                                             "weight": weight}}})


def test_a_study_trains_with_circle_loss(params, tmp_path, monkeypatch):
    study = load_study("small", params=params)
    plain, circle = batch.run_all(study, tmp_path, "cpu")
    row, = read_tables([circle], "history").to_dict("records")
    assert row["circle"] > 0 and row["loss"] == pytest.approx(row["identity"] + row["circle"])
    assert "circle" not in read_tables([plain], "history")
    digest = hashlib.sha256(CIRCLE.encode()).hexdigest()
    assert circle["config"]["loss"] == {"function": "mine.circle", "weight": 0.1, "sha256": digest}
    assert circle["fingerprint"] != plain["fingerprint"]

    (params / "mine.py").unlink()  # read, reported and found again where the source is not
    folder = Workspace("small", tmp_path).runs / "circle-s0"
    assert read_run(folder)["fingerprint"] == circle["fingerprint"]
    saved = read_study(Workspace("small", tmp_path))
    assert saved.config("circle", 0).fingerprint(saved.checksum) == circle["fingerprint"]
    monkeypatch.setattr(runner, "train", None)
    assert batch.run_all(saved, tmp_path, "cpu") == [plain, circle]
    path = folder / "run.json"
    path.write_text(path.read_text().replace(digest, "0" * 64))
    with pytest.raises(ValueError, match="fingerprint is not that of config and data"):
        read_run(folder)


def test_a_changed_source_is_another_run(params, tmp_path, capsys):
    study = load_study("small", params=params)
    batch.run_all(study, tmp_path, "cpu")
    (params / "mine.py").write_text(CIRCLE + "# changed\n")
    changed = load_study("small", params=params)
    prints = [s.config("circle", 0).fingerprint("") for s in (study, changed)]
    assert prints[0] != prints[1]
    assert study.config("plain", 0).fingerprint("") == changed.config("plain", 0).fingerprint("")
    workspace = Workspace("small", tmp_path)
    assert saved_or_new(workspace).candidates == study.candidates
    assert "Delete that file, or run 01_data, to take the new values" in capsys.readouterr().out
    lab = Experiment(workspace, "cpu")
    lab.run("circle", 0)  # finished
    (workspace.runs / "circle-s0/run.json").unlink()
    next(workspace.artifacts.glob("circle-s0-*/run.json")).unlink()
    with pytest.raises(ValueError, match=r"mine.circle had the SHA-256 \w{64} when the study was "
                                         r"saved, .*mine.py has \w{64}: bring the former source"):
        lab.run("circle", 0)
    _, again = batch.run_all(changed, tmp_path, "cpu")
    assert len(list(workspace.artifacts.glob("circle-s0-*"))) == 2
    assert again["config"]["loss"]["sha256"] == changed.candidates["circle"]["loss"]["sha256"]


def test_the_term_is_the_weight_times_the_function_of_what_the_model_gives(params):
    config = replace(config_of("mine.circle", 0.25), am_margin=0.2)
    logits, ids = torch.randn(6, 2, 3).tanh(), torch.arange(6) // 2
    emb = torch.randn(6, 5, requires_grad=True)
    terms = build_loss(config)(logits, emb, ids)
    plain = build_loss(replace(config, loss=None))(logits, emb, ids)
    assert list(terms) == ["identity", "circle"] and terms["identity"] == plain["identity"]
    assert terms["circle"] == 0.25 * CircleLoss()(emb, ids)


def test_a_function_of_an_installed_module(params, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere" / "theirs"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported to look for it')")
    (folder / "losses.py").write_text(CIRCLE)
    monkeypatch.syspath_prepend(folder.parent)
    config = config_of("theirs.losses.circle")
    assert config.loss.sha256 == hashlib.sha256(CIRCLE.encode()).hexdigest()
    (folder / "__init__.py").write_text("")
    assert own_loss.load(config.loss)(None, torch.ones(2, 3), torch.arange(2)) == 0
    (params / "theirs").mkdir()  # next to the parameter file comes first
    (params / "theirs/losses.py").write_text("circle = len")
    assert own_loss.load(config_of("theirs.losses.circle").loss) is len
    assert own_loss.find_source("torch.nn.functional.cross_entropy").name == "functional.py"
    del sys.modules["theirs"], sys.modules["theirs.losses"]


def test_names_of_a_history_are_taken(params, lab):
    """A term that is called like another column would hide it."""
    columns = read_tables([lab.run("improved", 0)], "history").columns
    columns = set(columns) - {"run", "preset", "seed"}
    for name in (*columns, "validation", "local", "scale"):
        with pytest.raises(ValueError, match=f"the history has a column {name} already"):
            config_of(f"mine.{name}")


SOURCES = {"no_tensor": "return 0.5", "vector": "return embedding.sum(1)",
           "integer": "return ids.sum()", "detached": "return embedding.sum().detach()"}


@pytest.mark.parametrize("name, message", [
    ("no_tensor", "loss no_tensor gives float; expected a tensor of one floating-point number"),
    ("vector", r"loss vector gives a tensor of shape \(6,\) and type torch.float32; expected"),
    ("integer", r"loss integer gives a tensor of shape \(\) and type torch.int64; expected"),
    ("detached", "loss detached has no gradient; expected .* without detach, item or no_grad"),
    ("few", "loss few: too many positional arguments; it is given what the model gives, and the "
            "identities: 3 tensors"),
])
def test_what_a_function_gives_is_checked(params, name, message):
    body = SOURCES.get(name, "return embedding.sum()")
    given = "embedding, ids" if name == "few" else "logits, embedding, ids"
    (params / "mine.py").write_text(f"def {name}({given}):\n    {body}\n")
    loss = build_loss(config_of(f"mine.{name}"))
    emb = torch.randn(6, 5, requires_grad=True)
    with pytest.raises(ValueError, match=message):
        loss(torch.randn(6, 2, 3), emb, torch.arange(6) // 2)


@pytest.mark.parametrize("source, message", [
    ("def circl(*given): pass", r"unknown function of .*mine.py 'circle' \(did you mean 'circl'"),
    ("circle = 3", "loss.function mine.circle is 3; expected a function"),
    ("import nothing_of_that_name", r"mine.py cannot be imported \(ModuleNotFoundError: No module "
                                    "named 'nothing_of_that_name'"),
    ("def circle(", r"mine.py cannot be imported \(SyntaxError: .*line 1"),
    ("import torch; circle = torch.nn.Linear(2, 1)", "loss circle has weights of its own, which"),
])
def test_a_source_without_the_function_stops_before_anything_is_trained(params, tmp_path, source,
                                                                        message, monkeypatch):
    (params / "mine.py").write_text(source)
    study = load_study("small", params=params)
    monkeypatch.setattr(runner, "train", None)
    for start in (lambda: batch.run_all(study, tmp_path, "cpu"),
                  lambda: check_starts(study, Workspace("small", tmp_path))):
        with pytest.raises(ValueError, match=message):
            start()


@pytest.mark.parametrize("loss, message", [
    ("3", "loss is 3; expected `key: value` lines"),
    ("{function: mine.circle}", "loss.weight is missing"),
    ("{weight: 1}", "loss.function is missing"),
    ("{function: 3, weight: 1}", "loss.function is 3; expected text"),
    ("{function: mine.circle, weight: 0}", "loss.weight is 0; expected a number above 0"),
    ("{function: mine.circle, weight: -0.1}", "loss.weight is -0.1; expected a number above 0"),
    ("{function: mine.circle, weight: .nan}", "loss.weight is nan; expected a finite number"),
    ("{function: mine.circle, weight: 1, wight: 2}", "unknown key of loss 'wight' (did you "
     "mean 'weight'?); known: function, weight"),
    ("{fn: mine.circle, weight: 1}", "unknown key of loss 'fn'; known: function, weight"),
    ("{function: circle, weight: 1}", "loss.function is 'circle'; expected module.function, such "
                                      "as mymodule.circle"),
    ("{function: ../mine.circle, weight: 1}", "loss.function is '../mine.circle'; expected "
                                              "module.function, such as mymodule.circle"),
    ("{function: yours.circle, weight: 1}",
     "loss.function is 'yours.circle', but there is no module yours: neither FOLDER/yours.py nor "
     "an installed one; write it, or correct the name"),
    ("{function: torch.nothing.circle, weight: 1}",
     "loss.function is 'torch.nothing.circle', but there is no module torch.nothing: neither "
     "FOLDER/torch/nothing.py nor an installed one; write it, or correct the name"),
    ("{function: sys.circle, weight: 1}",
     "loss.function is 'sys.circle', but there is no module sys: neither FOLDER/sys.py nor an "
     "installed one; write it, or correct the name"),
])
@pytest.mark.parametrize("line", ["train: {loss: LOSS}", "candidates: {a: {loss: LOSS}}"])
def test_a_bad_value_is_named_with_what_was_expected(params, line, loss, message):
    (params / "bad.yaml").write_text(f"dataset: synthetic\n{line.replace('LOSS', loss)}")
    with pytest.raises(ValueError) as caught:
        load_study("bad", params=params)
    assert str(caught.value) == f"bad.yaml: {message.replace('FOLDER', str(params))}"


def test_a_loss_that_is_not_finite_is_named_by_the_loop(params, make_model, make_images):
    (params / "mine.py").write_text("def circle(logits, embedding, ids):\n"
                                    "    return embedding.sum() / 0")
    model = make_model()
    batches = [(make_images(4), torch.arange(4))]
    with pytest.raises(FloatingPointError, match="^circle not finite in epoch 0, batch 0"):
        loop.fit(model, lambda epoch: batches, build_loss(config_of("mine.circle")),
                 torch.optim.SGD(model.parameters(), 0.1), 1)


def test_a_configuration_with_its_hash_needs_no_source(params):
    config = config_of("mine.circle", 2)
    assert hash(config) == hash(config_of("mine.circle", 2.0)) and config.loss.weight == 2.0
    (params / "mine.py").unlink()
    again = TrainConfig(**json.loads(json.dumps(asdict(config))))
    assert again == config and again.fingerprint("a") == config.fingerprint("a")
    assert replace(config, lr=1.0).loss == config.loss
    with pytest.raises(ValueError, match="there is no module mine"):
        config_of("mine.circle")
    (params / "none.yaml").write_text("dataset: synthetic\ncandidates: {a: {loss: null}}")
    assert load_study("none", params=params).config("a", 0).loss is None
