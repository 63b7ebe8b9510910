"""The benchmarks run and write what they say; how fast they are is never a test's business."""

import importlib
import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from reidlib.evaluation.reranking import rerank
from reidlib.evaluation.scoring import evaluate
from tests.benchmarks import measure, plain, training
from tests.benchmarks.evaluation import candidates as evaluation_rows
from tests.benchmarks.measure import (
    COLUMNS,
    TINY,
    Candidate,
    PeakMemory,
    Size,
    make_pair,
    resident_mb,
)
from tests.benchmarks.reranking import dense_rerank
from tests.benchmarks.workload import Step

MODULES = {"evaluation": ["floor", "reidlib standard", "reidlib all 5 protocols",
                          "reidlib all 7 protocols", "numpy", "torchmetrics",
                          "pytorch-metric-learning"],
           "reranking": ["floor", "reidlib rerank", "floor", "reidlib rerank", "numpy"],
           "training": ["floor matrix", "floor bare", "reidlib training", "reidlib blockwise",
                        "reidlib deterministic", "reidlib compiled", "plain"],
           "embedding": ["floor", "reidlib embed", "plain"]}


def check(table, expected, printed):
    assert list(table.columns) == COLUMNS
    left_out = sum(line.startswith("left out") for line in printed.splitlines())
    names = [start for start in expected if table["name"].str.startswith(start).any()]
    assert len(names) == len(expected) - left_out == len(table)
    assert set(expected) - set(names) <= {"torchmetrics", "pytorch-metric-learning"}
    floor = table["name"].str.startswith("floor")
    assert (table.loc[floor, "ratio_to_floor"] == 1).all()
    assert (table[["seconds", "ratio_to_floor", "threads"]] > 0).all(axis=None)
    assert table["versions"].str.contains(r"^[a-z-]+ \d").all()
    assert all(line.startswith("|") for line in printed.splitlines()[-len(table) - 2:])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("module", ["evaluation", "reranking"])
def test_small_size_in_this_process(module, tmp_path, monkeypatch, capsys):
    rows = importlib.import_module(f"tests.benchmarks.{module}")
    sizes = (TINY,) if module == "evaluation" else (TINY, Size(10, 90, 32, 5))
    chosen = {"small": rows.candidates(*sizes)}

    def here(name, size, index):
        return subprocess.CompletedProcess([], 0, json.dumps(measure.measure(chosen[size][index])))

    monkeypatch.setattr(measure, "_in_own_process", here)
    monkeypatch.setattr(sys, "argv", ["bench", "--size", "small", "--reports", str(tmp_path)])
    measure.main(module, chosen)
    check(pd.read_csv(tmp_path / f"{module}.csv"), MODULES[module], capsys.readouterr().out)


@pytest.mark.parametrize("module", ["training", "embedding"])
def test_training_and_embedding_small_with_the_gpus_rows_empty(module, tmp_path, monkeypatch,
                                                               capsys):
    rows = importlib.import_module(f"tests.benchmarks.{module}")
    step = Step("tiny", 32).tiny()
    chosen = {"small": rows.candidates([step, replace(step, device="cuda")], [])}

    def here(name, size, index):
        return subprocess.CompletedProcess([], 0, json.dumps(measure.measure(chosen[size][index])))

    def no_compiler(*_):  # test_train compiles for real, which takes half a minute
        raise RuntimeError("not here")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(measure, "_in_own_process", here)
    monkeypatch.setattr(sys, "argv", ["bench", "--size", "small", "--reports", str(tmp_path)])
    table, _ = measure.main(module, chosen, ("cpu", "cuda"))
    measured = table[table["device"] == "cpu"].drop(columns="device")
    printed = capsys.readouterr().out
    assert measured["seconds"].notna().all() and len(measured) == len(MODULES[module])
    assert all(measured["name"].str.startswith(name).sum() == 1 for name in MODULES[module])
    assert table.loc[table["device"] == "cuda", measure.COLUMNS[2:]].isna().all(axis=None)
    assert (table["device"] == "cuda").sum() >= 2 and "nan" not in printed
    path, later = tmp_path / f"{module}.csv", table.assign(seconds=1.5)
    later.to_csv(path, index=False)  # rows of another device stay as they were measured
    cuda = next(c for c in chosen["small"] if c.size.device == "cuda")
    assert measure._earlier(path, cuda)["seconds"] == 1.5


def test_the_plain_code_does_the_same_work_and_a_wrong_one_is_seen(monkeypatch):
    data = Step("tiny", 32).tiny().make()
    assert plain.does_the_same_work(*data)
    monkeypatch.setattr(plain.PlainModel, "embed", lambda self, parts: torch.cat(parts, 1))
    assert not plain.does_the_same_work(*data)


def test_growth_is_per_image_and_knows_the_machines_rate():
    rows = [("floor matrix product of 2048 x 2048", "tiny", 32, 2 * 2048 ** 3 / 1e12, 1.0),
            ("reidlib training", "base", 16, 8.0, 1.25), ("reidlib training", "tiny", 32, 3.2, 1.0)]
    table = pd.DataFrame([{"name": name, "size": str(Step(backbone, batch)), "device": "cpu",
                           "seconds": seconds, "ratio_to_floor": ratio}
                          for name, backbone, batch, seconds, ratio in rows])
    growth = training.growth_table(table)
    assert growth["backbone"].tolist() == ["tiny", "base"]
    assert growth["ms_per_image"].tolist() == pytest.approx([100, 500])
    assert growth["images_per_second"].tolist() == pytest.approx([10, 2])
    assert growth["floor_ms_per_image"].tolist() == pytest.approx([100, 400])
    # ViT-Base: 17.6 G multiply-adds a forward pass (Dosovitskiy et al. 2021), backward twice that
    assert growth["floor_share_of_matrix_rate"][1] == pytest.approx(
        3 * 2 * 17.6e9 / 0.4 / 1e12, rel=0.03)
    assert len(training.growth_figure(growth).axes[0].lines) == 2


def test_a_row_in_a_process_of_its_own():
    done = measure._in_own_process("reranking", "small", 1)
    row = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and row["name"].startswith("reidlib rerank") and row["seconds"] > 0


def test_features_are_neither_hopeless_nor_perfect():
    query, gallery = make_pair(Size(200, 1000, 256, 60))
    scores, *_ = evaluate(query, gallery, flips=("none",), protocols=("standard", "all-gallery"))
    assert scores["mAP"].between(0.2, 0.98).all()
    assert (gallery.ids == "0000").any() and not (query.ids == "0000").any()
    np.testing.assert_allclose(np.linalg.norm(gallery.emb, axis=1), 1, rtol=1e-5)
    again, _ = make_pair(Size(200, 1000, 256, 60))
    np.testing.assert_array_equal(query.emb, again.emb)


@pytest.mark.parametrize("seed", range(3))
def test_dense_reranking_is_the_same_definition(seed):
    query, gallery = make_pair(Size(40, 150, 32, 12), seed)
    np.testing.assert_allclose(rerank(query.emb, gallery.emb),
                               dense_rerank(query.emb, gallery.emb), atol=1e-5)


def test_a_wrong_result_is_not_measured():
    wrong = Candidate("peer", TINY, lambda query, gallery: lambda: 0.5,
                      lambda found, query, gallery: found == 1)
    with pytest.raises(AssertionError, match="peer gives another result"):
        measure.measure(wrong)


def test_a_missing_peer_is_left_out_and_told(capsys):
    peer = evaluation_rows(TINY)[-1]
    peer = Candidate("peer", TINY, peer.prepare, peer.agrees, ("no-such-package",))
    assert measure._row("evaluation", "small", 5, peer) is None
    assert "left out: peer: no-such-package is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "stops"), [("peer", False), ("reidlib standard", True)])
def test_a_failing_peer_is_left_out_but_not_the_library(name, stops, monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], 1, "", "trace\nMemoryError: too much")
    monkeypatch.setattr(measure, "_in_own_process", lambda *_: failed)
    row = Candidate(name, TINY, lambda query, gallery: None, lambda *_: True)
    if stops:
        with pytest.raises(RuntimeError, match="reidlib standard: MemoryError: too much"):
            measure._row("evaluation", "small", 0, row)
    else:
        assert measure._row("evaluation", "small", 0, row) is None
        assert "left out: peer: MemoryError: too much" in capsys.readouterr().out


@pytest.mark.skipif(np.isnan(resident_mb()), reason="needs /proc")
@pytest.mark.parametrize("sampled", [False, True])
def test_peak_memory_sees_what_was_freed_again(sampled, monkeypatch):
    def refuse(*_):
        raise PermissionError

    if sampled:
        monkeypatch.setattr(measure.Path, "write_text", refuse)
    peak = PeakMemory()
    array = np.ones(2 ** 24)
    if sampled:
        time.sleep(0.2)
    del array
    assert 100 < peak.stop() < 300
