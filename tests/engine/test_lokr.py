"""LoKr: the layer computes a Kronecker product, learns, and is stored as a LoRA of the same change."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.adapters import lora
from engine.adapters.adapters import FILE, Attached
from engine.adapters.exchange import export, import_lora, imported_facts
from engine.adapters.lokr import LokrLayer, smaller_factor
from engine.drawing.drawing import draw
from tests.engine.learning import learn
from tests.engine.test_interruptions import stopped
from tests.engine.tiny import LORA, asked, assert_same, load, plainly

LOKR = replace(LORA, adapter="lokr", factor=4, rank=2, alpha=3)


def layer_of(kind: str) -> nn.Linear | nn.Conv2d:
    torch.manual_seed(1)
    return nn.Linear(32, 48) if kind == "linear" else nn.Conv2d(16, 24, 3, stride=2, padding=1)


def adapted(kind: str, rank: int) -> LokrLayer:
    torch.manual_seed(2)
    layer = LokrLayer(layer_of(kind), replace(LOKR, rank=rank), "zk1")
    assert layer.whole == (rank > 5)
    return layer


def moved(layer: LokrLayer) -> None:
    random = torch.Generator().manual_seed(4)
    for parameter in layer.trainable.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)


def change_of(layer: LokrLayer) -> Tensor:
    """s kron(w1, w2), as a whole weight."""
    parts = {key: parameter.detach() for key, parameter in layer.trainable.items()}
    if layer.whole:
        second, scale = parts["lora_w2"], 1.0
    else:
        into = parts["lora_w2_b"]
        second, scale = (parts["lora_w2_a"] @ into.flatten(1)).reshape(-1, *into.shape[1:]), 3 / layer.rank
    first = parts["lora_w1"].reshape(*parts["lora_w1"].shape, *[1] * (second.ndim - 2))
    return scale * torch.kron(first, second.contiguous())


@pytest.mark.parametrize("rank", [2, 8], ids=["low rank", "whole"])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_an_adapted_layer_adds_a_kronecker_product_and_is_stored_as_a_lora(kind: str, rank: int) -> None:
    layer = adapted(kind, rank)
    features = torch.randn(2, 7, 32) if kind == "linear" else torch.randn(2, 16, 9, 8)
    assert torch.equal(layer(features), layer.base_layer(features)), "it starts as the base"
    moved(layer)
    wanted = layer_of(kind)
    wanted.weight.data += change_of(layer)
    assert torch.allclose(layer(features), wanted(features), atol=1e-4)
    tensors, stored_rank, alpha = layer.as_lora()
    down, up = tensors["lora_A.weight"], tensors["lora_B.weight"]
    product = (up.flatten(1) @ down.flatten(1)).reshape(wanted.weight.shape)
    assert len(down) == stored_rank == alpha and torch.allclose(product, change_of(layer), atol=1e-5)
    layer(features).square().sum().backward()
    assert all(bool(one.grad.abs().sum() > 0) for one in layer.trainable.values() if one.grad is not None)
    assert all(one.grad is not None for one in layer.trainable.values())
    layer.enabled = False
    assert torch.equal(layer(features), layer.base_layer(features))


def test_a_lokr_has_fewer_parameters_than_a_lora_of_its_change() -> None:
    layer = LokrLayer(nn.Linear(320, 320), replace(LOKR, factor=8, rank=16), "zk1")
    own = sum(parameter.numel() for parameter in layer.trainable.values())
    assert own == 64 + 2 * 16 * 40
    moved(layer)
    assert layer.as_lora()[1] == 128 and own < 128 * 640 / 50


@pytest.mark.parametrize(("size", "factor", "smaller"), [(128, 8, 8), (32, 8, 4), (320, 16, 16), (30, 8, 5), (7, 8, 1)])
def test_the_smaller_factor_is_a_divisor(size: int, factor: int, smaller: int) -> None:
    assert smaller_factor(size, factor) == smaller and smaller <= math.isqrt(size)


@pytest.mark.parametrize("family", ["sd1", "klein"])
def test_a_learned_lokr_draws_the_same_in_plain_diffusers_and_after_an_export(
    folders, family: str, pictures, tmp_path: Path, exact
) -> None:  # fmt: skip
    base = load(folders(family))
    targets = None if family == "klein" else ("to_q", "to_k", "to_v", "to_out.0", "conv1")
    recipe = replace(LOKR, targets=targets, text_encoder=bool(base.family.text_targets), learning_rate=2e-2)
    learn(base, pictures, recipe, tmp_path / FILE, side=64)
    assert not any(lora.lora_layers(module) for module in base.adaptable.values())
    attached = Attached(base)
    ours = draw(base, attached, asked(tmp_path))[0].image
    assert ours.tobytes() != draw(base, attached, asked())[0].image.tobytes()
    assert_same(plainly(folders(family), family, tmp_path / FILE), ours)
    export(base, tmp_path, "kohya", tmp_path / "kohya.safetensors")
    facts = imported_facts(base, "avatar", "zk1", "man")
    import_lora(base, tmp_path / "kohya.safetensors", facts, tmp_path / "back" / FILE)
    assert_same(draw(base, attached, asked(tmp_path / "back"))[0].image, ours)


def test_a_lokr_that_was_interrupted_goes_on_as_if_it_was_not(folders, pictures, tmp_path: Path) -> None:
    base, halved = load(folders("sd1")), tmp_path / "halved" / FILE
    learn(base, pictures, LOKR, tmp_path / "whole" / FILE)
    stopped(base, pictures, tmp_path / "kept", LOKR)
    assert learn(base, pictures, LOKR, halved, checkpoint=tmp_path / "kept").resumed_at == 2
    whole, again = load_file(tmp_path / "whole" / FILE), load_file(halved)
    assert whole.keys() == again.keys() and all(torch.equal(whole[key], again[key]) for key in whole)
