"""What the README shows is run, in its order."""

import re
import shutil

import pytest

from reidlib.data.datasets import read_dataset
from reidlib.data.synthetic.dataset import write_dataset
from reidlib.data.synthetic.spec import SyntheticSpec
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import make_config
from reidlib.experiments.study import load_study
from reidlib.models import files, la_transformer
from reidlib.utils.paths import ROOT

README = (ROOT / "README.md").read_text()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with ``mine/images.csv``, and the place to stand in."""
    spec = SyntheticSpec(train_ids=4, test_ids=2, n_query=2, n_query_copies=0, orientations=2)
    folder = write_dataset(tmp_path / "data" / "mine", spec)
    listing = read_dataset("synthetic", folder).manifest[["path", "id", "cam", "split"]]
    listing.to_csv(folder / "images.csv", index=False)
    for name, path in zip(("first.png", "second.png"), listing["path"], strict=False):
        shutil.copy(folder / path, tmp_path / name)
    backbone = {"name": "vit_tiny_patch16_224", "image_size": 32,
                "args": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}}
    model = la_transformer.LATransformer(backbone.build_backbone(pretrained=False, **backbone), 5)
    files.save(model, tmp_path / "artifacts/synthetic/weights/best.safetensors", backbone,
                {"n_identities": 5})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_snippets_of_weights_data_backbone_and_loss(mine, capsys):
    names = {}
    found = blocks("python")
    assert len(found) == 5
    for snippet in found:
        exec(snippet, names)
    row, = names["history"]
    assert row["identity"] > 0 and row["circle"] > 0 and row["images"] == 16
    assert "standard-all" in set(names["scores"]["protocol"])
    said = capsys.readouterr().out
    assert "epoch 1/1" in said and re.search(r"^cosine similarity [01]\.\d\d$", said, re.M)


def test_the_parameter_file_loads(tmp_path):
    text, = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(text)
    assert load_study("mine", params=tmp_path).config("improved", 0).epochs == 20


def test_the_table_of_parameters_is_true():
    rows = re.findall(r"^\| `(\w+): ([\w.]+)` \| ([\w ]+) \|", README, re.M)
    assert len(rows) == 11
    for name, value, default in rows:
        given = {"true": True}.get(value, value)
        given = int(value) if value.isdigit() else given
        config = make_config("baseline", 0, {"schedule": "end-to-end", name: given})
        assert getattr(config, name) != getattr(TrainConfig(), name)
        off = getattr(TrainConfig(), name)
        shown = f"{off:g}" if type(off) is float else str(off).lower()
        assert default == shown or name == "warmup_epochs" and default == "constant rates"
