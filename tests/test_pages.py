"""What the pages show is true: snippets run, commands exist, links lead somewhere."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import papermill
import pytest
import torch
import typer.main
import yaml

from reidlib.cli import app
from reidlib.data.datasets import read_dataset
from reidlib.data.synthetic.dataset import write_dataset
from reidlib.data.synthetic.spec import SyntheticSpec
from reidlib.experiments import own_loss
from reidlib.experiments.config import TrainConfig
from reidlib.experiments.presets import PAPER_PRESETS, PRESETS, make_config
from reidlib.experiments.study import Study, load_study
from reidlib.experiments.train import build_loss
from reidlib.models import files
from reidlib.models.backbone import build_backbone
from reidlib.models.la_transformer import LATransformer
from reidlib.report.notebooks import NOTEBOOKS
from reidlib.report.study_results import check_presets
from reidlib.utils.paths import ROOT

PAGES = [ROOT / name for name in (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "notebooks/README.md",
    "reidlib/README.md", "reports/README.md")]
LIBRARY = (ROOT / "reidlib" / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split()
VALUES = {*re.search(r"^VALUES := (.*)$", MAKEFILE, re.M)[1].split(), "REIDLIB_DATA",
          "REIDLIB_WEIGHTS"}
COMMAND = re.compile(r"(REIDLIB_\w+=\S+ )*(make|reidlib|papermill|\S*python -m|accelerate launch) ")
each = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(page, language):
    """The code blocks of one language, "" for plain ones."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M)
    return [text for name, text in found if name == language]


def commands(page):
    """Every command of a page: lines of its plain code blocks, and what is in backticks."""
    lines = [line.partition(" #")[0] for block in blocks(page, "") for line in block.splitlines()]
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    if page.name == "CHANGELOG.md":  # the first column names what is gone
        text = re.sub(r"^\|[^|]*", "", text, flags=re.M)
    inline = re.findall(r"`([^`\n]+)`", text)
    parts = [part.strip() for line in (*lines, *inline) for part in line.split("&&")]
    return [shlex.split(part) for part in parts if COMMAND.match(part)]


def test_the_front_page_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


# snippets

@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with ``data/mine/images.csv`` and trained weights, and the place to be in."""
    spec = SyntheticSpec(train_ids=4, test_ids=2, n_query=2, n_query_copies=0, orientations=2)
    folder = write_dataset(tmp_path / "data" / "mine", spec)
    listing = read_dataset("synthetic", folder).manifest[["path", "id", "cam", "split"]]
    listing.to_csv(folder / "images.csv", index=False)
    for name, path in zip(("first.png", "second.png"), listing["path"], strict=False):
        shutil.copy(folder / path, tmp_path / name)
    backbone = {"name": "vit_tiny_patch16_224", "image_size": 32,
                "args": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}}
    model = LATransformer(build_backbone(pretrained=False, **backbone), 5)
    files.save(model, tmp_path / "artifacts/synthetic/weights/best.safetensors",
               {"backbone": backbone, "head": {"n_identities": 5}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_snippets_of_data_backbone_loss_scores_search_and_weights(mine, capsys):
    names = {}
    found = blocks(ROOT / "reidlib" / "README.md", "python")
    assert len(found) == 7
    for snippet in found:
        exec(snippet, names)
    row, = names["history"]
    assert row["identity"] > 0 and row["circle"] > 0 and row["images"] == 16
    assert "standard-all" in set(names["scores"]["protocol"])
    query, gallery = names["query"], names["gallery"]
    nearest = np.argsort(-query.features(True) @ gallery.features(False).T, axis=1)[:, :2]
    assert names["found"].tolist() == gallery.paths[nearest].tolist()
    said = capsys.readouterr().out
    assert "epoch 1/1" in said and re.search(r"^cosine similarity [01]\.\d\d$", said, re.M)


def test_the_loss_of_a_study_is_the_one_that_its_page_shows(tmp_path, monkeypatch):
    page = ROOT / "reidlib" / "README.md"
    source = next(text for text in blocks(page, "python") if "def circle" in text)
    (tmp_path / "mylosses.py").write_text(source)
    (tmp_path / "mine.yaml").write_text(*blocks(page, "yaml"))
    monkeypatch.setattr(own_loss, "PARAMS", tmp_path)
    study = load_study("mine", params=tmp_path)
    check_presets(study)
    emb, ids = torch.randn(8, 4, requires_grad=True), torch.arange(8) // 4
    terms = build_loss(study.config("circle", 0))(torch.randn(8, 2, 3), emb, ids)
    assert terms["circle"] > 0 and list(terms) == ["identity", "circle"]


def test_no_other_page_has_python_that_nobody_runs():
    assert [page for page in PAGES if blocks(page, "python")] == [ROOT / "reidlib" / "README.md"]


@pytest.mark.parametrize("page", ["README.md", "notebooks/README.md"])
def test_parameter_files_load(page, tmp_path):
    text, = blocks(ROOT / page, "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    study = load_study("mine", params=tmp_path)
    assert study.is_own_data and study.config("improved", 0).epochs == 20
    assert study.all_presets == (PAPER_PRESETS if page == "README.md" else
                                 ("untrained", "baseline", "improved", "best"))


def test_the_table_of_parameters_is_true():
    rows = re.findall(r"^\| `(\w+): ([\w.-]+)` \| ([\w. -]+) \|", LIBRARY, re.M)
    assert len(rows) == 30
    preset = {"model": "transreid", "side_information": "transreid-no-cameras",
              "scale_lr": "deep-cosine"}
    words = {"warmup_epochs": "constant rates", "stride": "the patch", "scale_lr": "as lr"}
    for name, value, default in rows:
        given = {"true": True}.get(value, value)
        given = int(value) if value.isdigit() else given
        schedule = "blockwise" if name == "release" else "end-to-end"
        changes = {"preset": preset.get(name, "baseline"), "schedule": schedule, name: given}
        config = make_config("mine", 0, candidates={"mine": changes})
        assert getattr(config, name) != getattr(TrainConfig(), name)
        off = getattr(TrainConfig(), name)
        shown = f"{off:g}" if type(off) is float else str(off).lower()
        assert default == words.get(name, shown)


def test_the_keys_of_a_parameter_file_are_those_of_a_study():
    text = (ROOT / "notebooks" / "README.md").read_text().partition("## A parameter file")[2]
    keys = [key for cell in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.M)
            for key in re.findall(r"\w+", cell)]
    assert sorted(keys) == sorted(set(Study.__dataclass_fields__) - {"name", "checksum"})
    named = re.search(r"what is trained, from (.*?);", text)[1]
    assert set(re.findall(r"[\w-]+", "".join(re.findall(r"`.*?`", named)))) == set(PRESETS)


# commands

def check_make(words, command):
    targets = [word for word in words if "=" not in word]
    given = {word.partition("=")[0] for word in words if "=" in word}
    assert given <= VALUES and targets and set(targets) <= set(TARGETS), command


def check_reidlib(words, command):
    known = typer.main.get_command(app).commands
    if words[0].startswith("<"):
        return
    if words[0].startswith("-"):
        assert words in (["--help"], ["--version"], ["--install-completion"]), command
        return
    assert words[0] in known, command
    options = {name for option in known[words[0]].params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= options, command
    if "--preset" in words:
        assert words[words.index("--preset") + 1] in PRESETS, command


def check_papermill(words, command):
    declared = papermill.inspect_notebook(str(ROOT / words[0]))
    assert {words[i + 1] for i, word in enumerate(words) if word == "-p"} <= set(declared), command


def checked(command):
    """Check one command of a page; False for what is none of ours."""
    words = [word for word in command if word != "..."]
    modules = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-m"]
    while words and re.fullmatch(r"REIDLIB_\w+=.*", words[0]):
        words = words[1:]
    if "reidlib" in modules:
        words = words[words.index("reidlib"):]
    elif modules and modules[0].startswith(("reidlib", "tests")):
        assert is_module(modules[0]), command
        return True
    check = {"make": check_make, "reidlib": check_reidlib, "papermill": check_papermill}
    if len(words) < 2 or words[0] not in check:
        return False
    check[words[0]](words[1:], command)
    return True


@each
def test_commands_exist(page):
    found = [command for command in commands(page) if checked(command)]
    assert len(found) >= {"README.md": 15, "notebooks/README.md": 7}.get(
        str(page.relative_to(ROOT)), 2)


@pytest.mark.parametrize("command", [
    "make reprot", "make report STDY=x", "reidlib fetch", "reidlib run --preset none --study x",
    "reidlib run --sudy pku-reid", "python -m reidlib verify --study x",
    "accelerate launch -m reidlib run --sed 0", "python -m tests.benchmarks.search",
    "papermill notebooks/01_data.ipynb out.ipynb -p sudy x"])
def test_a_wrong_command_is_seen(command):
    with pytest.raises(AssertionError):
        checked(shlex.split(command))


def test_the_workflow_calls_the_two_commands():
    path, = ROOT.glob(".github/workflows/*.yml")
    steps = yaml.safe_load(path.read_text())["jobs"]["both"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make test", "make report"]


# names and links

def anchors(path):
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@each
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists() and path.is_relative_to(ROOT), target
        assert not heading or heading in anchors(path), target


@each
def test_names_of_the_library_exist(page):
    for name in re.findall(r"`(reidlib(?:\.\w+)+)", page.read_text()):
        if page.name == "CHANGELOG.md":
            continue
        parts = name.split(".")
        module = next(".".join(parts[:n]) for n in range(len(parts), 0, -1)
                      if is_module(".".join(parts[:n])))
        found = importlib.import_module(module)
        for part in parts[module.count(".") + 1:]:
            found = getattr(found, part)


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def test_new_names_in_the_changelog_exist():
    table = (ROOT / "CHANGELOG.md").read_text().partition("What moved")[2].partition("\n\n**")[0]
    rows = re.findall(r"^\| `.*? \| (.*?) \|$", table, re.M)
    assert len(rows) >= 15
    for row in rows:
        room = ""
        for name in re.findall(r"`([\w.]+)`", row):
            room = name.partition(".")[0] if not name.startswith(".") else room
            full = f"{room}{name}" if name.startswith(".") else name
            if full[0].islower() and "." in full:
                assert exists(full), full


def exists(name):
    """Whether ``room.module`` or ``room.module.thing`` is there."""
    room, module, *thing = name.split(".")
    if not is_module(f"reidlib.{room}.{module}"):
        return False
    return not thing or hasattr(importlib.import_module(f"reidlib.{room}.{module}"), thing[0])


def test_the_map_names_every_module():
    rooms = re.search(r"^\| room .*?(?=\n\n)", LIBRARY, re.S | re.M)[0]
    mapped = {}
    for links, content in re.findall(r"^\| (\[.*?) \| (.*?) \|$", rooms, re.M):
        room = re.findall(r"\((\w+)\)", links)[0]
        mapped[room] = set(re.findall(r"`(\w+)/?`", content)) - {"losses", "templates"}
    assert mapped == {folder.name: {path.stem for path in folder.rglob("*")
                                    if is_piece(path)} for folder in (ROOT / "reidlib").iterdir()
                      if (folder / "__init__.py").is_file()}


def is_piece(path: Path) -> bool:
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()


def test_every_notebook_is_on_both_pages_and_its_executed_copy_on_the_front():
    for page in ("README.md", "notebooks/README.md"):
        text = (ROOT / page).read_text()
        assert all(f"{path.name})" in text for path in NOTEBOOKS)
    front = (ROOT / "README.md").read_text()
    assert all(f"](reports/synthetic/executed/{path.name})" in front for path in NOTEBOOKS)


def test_every_figure_table_and_equation_of_the_paper_has_its_place():
    """And that place is a notebook or a page that is there; Table 1 alone has no notebook."""
    text = (ROOT / "notebooks" / "README.md").read_text().partition("figure by figure")[2]
    rows = re.findall(r"^\| (.*?) \| .*? \| (.*?) \|$", text.partition("\n## ")[0], re.M)[2:]
    figures = []
    for named, place in rows:
        first, last = re.search(r"Figures? (\d+)(?:–(\d+))?|$", named).groups()
        figures += range(int(first), int(last or first) + 1) if first else []
        links = re.findall(r"\]\(([^)#]+)\)", place)
        assert all((ROOT / "notebooks" / link).is_file() for link in links)
        notebooks = {path.name for path in NOTEBOOKS} & set(links)
        assert notebooks or named.startswith(("Table 1", "Sec. 6")), named
    assert sorted(figures) == [*range(1, 14)]
    names = " ".join(named for named, _ in rows)
    assert all(part in names for part in ("Table 1", "Eq. 1", "Eq. 2", "Sec. 4", "Sec. 5"))


def test_every_study_is_described():
    text = (ROOT / "notebooks" / "README.md").read_text()
    ours = [path for path in (ROOT / "notebooks" / "params").glob("*.yaml")
            if not load_study(path.stem).is_own_data]
    assert len(ours) >= 8 and all(f"](params/{path.name})" in text for path in ours)


def test_scores_that_explain_the_tables_are_from_them():
    text = (ROOT / "reports" / "README.md").read_text().partition("## How to read the tables")[2]
    examples = re.findall(r"`([-+\d.]+ ± [^`]+)`", text.partition("\n## ")[0])
    report = (ROOT / "reports" / "pku-reid" / "report.md").read_text()
    assert len(examples) == 3 and all(f"| {example} |" in report for example in examples)
