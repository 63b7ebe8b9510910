"""What several tests of models ask."""

import torch


def assert_all_learn(model, terms):
    """The loss reaches every parameter that is to learn, and no other."""
    sum(terms.values()).backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached == parameter.requires_grad, name


def assert_heads_see_all(make, images, *given):
    """``gather`` gets this process's rows; logits and features are of all that it gives back."""
    def gather(rows):
        return torch.cat([rows, rows.flip(0)])

    alone, together = make().eval(), make(gather=gather).eval()
    together.load_state_dict(alone.state_dict())
    for own, found in zip(alone(images, *given), together(images, *given), strict=True):
        want = torch.cat([own, own.flip(0)]) if own.ndim else own
        torch.testing.assert_close(found, want)
    torch.testing.assert_close(together.embed(images, *given), alone.embed(images, *given))
