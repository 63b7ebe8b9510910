"""The parts of a training run by name; what compiles a model leaves nothing behind."""

import pytest
import torch

from reidlib.data.batches import IdentitySampler, ShuffleSampler
from reidlib.training.build import build_sampler, build_schedule, compiled, plain_attention
from reidlib.training.optimisers import constant, make_optimiser


def test_samplers_by_images_per_identity():
    ids = torch.arange(12) % 3
    plain = build_sampler(ids, 6, None, 1)
    assert isinstance(plain, ShuffleSampler)
    assert (plain.n_images, plain.batch_size, plain.seed) == (12, 6, 1)
    paired = build_sampler(ids, 8, 4, 1, n_processes=2)
    assert isinstance(paired, IdentitySampler)
    assert (paired.p, paired.k, paired.seed, paired.n_processes) == (2, 4, 1, 2)


@pytest.mark.parametrize("name, epochs, options, rates", [
    ("blockwise", 9, {"release_every": 3, "lr_decay": 0.5}, [1, 1, 0.5]),
    ("end-to-end", 9, {"release_every": 3, "lr_decay": 0.5}, [1, 1, 1]),
    ("end-to-end", 4, {"warmup_epochs": 2.0}, [0.25, 0.5, 0.5 - 0.125 ** 0.5]),
    ("end-to-end", 0, {"warmup_epochs": 2.0}, [1, 1, 1]),  # untrained: nothing to warm up
])
def test_schedules_by_name(make_model, name, epochs, options, rates):
    model = make_model(4)
    optimiser = make_optimiser(model, 1.0, 1.0, 0.0)
    schedule, seen = build_schedule(name, model, optimiser, epochs, **options), []
    for done in (0.5, 2.0, 3.0):
        schedule(done)
        seen.append(optimiser.param_groups[0]["lr"])
    assert seen == pytest.approx(rates)
    assert (schedule is constant) == (rates == [1, 1, 1])


@pytest.mark.parametrize("stops", [False, True])
def test_after_compiling_model_and_compiler_are_as_before(make_model, monkeypatch, stops):
    monkeypatch.setattr(torch, "compile", lambda function: lambda *given: function(*given))
    model = make_model()
    try:
        with compiled(model):
            assert torch._dynamo.config.suppress_errors and model._compiled_call_impl
            if stops:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert stops
    assert torch._dynamo.config.suppress_errors is False
    assert model._compiled_call_impl is None


def test_without_a_compiler_the_model_runs_as_it_is(make_model, make_images, monkeypatch, capsys):
    def broken(function):
        raise RuntimeError("no C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    model = make_model().eval()
    expected = model(make_images(2)).logits
    with compiled(model):
        assert torch.equal(model(make_images(2)).logits, expected)
        assert not torch._dynamo.config.suppress_errors
    assert capsys.readouterr().out == (
        "torch.compile does not work here (no C++ compiler); going on without\n")
    with pytest.raises(ZeroDivisionError) as raised, compiled(model):
        1 / 0  # noqa: B018
    assert raised.value.__context__ is None  # no error of the compiler


def test_an_unknown_schedule_is_refused(make_model):
    model = make_model()
    with pytest.raises(ValueError, match="unknown schedule 'blockwize' .*'blockwise'"):
        build_schedule("blockwize", model, make_optimiser(model, 1.0, 1.0, 0.0), 3)


@pytest.mark.parametrize("stops", [False, True])
def test_plain_attention_gives_the_same_values_and_is_put_back(make_model, make_images, stops):
    model, images = make_model().eval(), make_images(2)
    attention = [module for module in model.modules() if hasattr(module, "fused_attn")]
    assert attention and all(module.fused_attn for module in attention)
    fused = model(images).logits
    try:
        with plain_attention(model):
            assert not any(module.fused_attn for module in attention)
            torch.testing.assert_close(model(images).logits, fused, atol=1e-5, rtol=1e-4)
            if stops:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert stops
    assert all(module.fused_attn for module in attention)
