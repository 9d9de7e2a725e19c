"""The engine's AdamW is torch's to the bit, and goes on from what torch's left behind."""

import copy

import torch

from engine.optimisers import AdamW


def stepped(optimiser: torch.optim.Optimizer, parameters: list[torch.Tensor], steps: range) -> None:
    for step in steps:
        for number, parameter in enumerate(parameters):
            random = torch.Generator().manual_seed(10 * step + number)
            # One of them has no gradient at first.
            parameter.grad = torch.randn(parameter.shape, generator=random) if number or step > 1 else None
        for group in optimiser.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimiser.step()
        optimiser.zero_grad()


def test_it_steps_as_torchs_does_and_either_goes_on_from_the_others_state() -> None:
    start = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3,), (4, 5), (2, 3, 1))]
    ours, theirs = ([torch.nn.Parameter(one.detach().clone()) for one in start] for _ in range(2))
    own = AdamW([{"params": ours[:1], "lr": 0.1}, {"params": ours[1:], "lr": 0.2, "weight_decay": 0.5}], 0.01)
    torchs = torch.optim.AdamW(
        [{"params": theirs[:1], "lr": 0.1}, {"params": theirs[1:], "lr": 0.2, "weight_decay": 0.5}],
        weight_decay=0.01, fused=True,
    )  # fmt: skip
    stepped(own, ours, range(4))
    stepped(torchs, theirs, range(4))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    states = [copy.deepcopy(optimiser.state_dict()["state"]) for optimiser in (own, torchs)]
    for number in range(3):
        assert all(torch.equal(value, states[1][number][name]) for name, value in states[0][number].items())
    groups = own.state_dict()["param_groups"]
    own.load_state_dict({"state": states[1], "param_groups": groups})
    stepped(own, ours, range(4, 6))
    stepped(torchs, theirs, range(4, 6))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(ours, start, strict=True))
