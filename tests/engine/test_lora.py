"""Low-rank layers of our own against peft's on the same weights, and a model that is itself again afterwards."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from engine.adapters import lora
from engine.adapters.adapters import FILE, LORA_METADATA, AdapterFacts, attach_fresh, detach, save_lora
from engine.bases.quantised import Int8Linear
from engine.recipe import Recipe
from tests.engine.tiny import LORA, load

NAME = "in_training"
ENDS = ("linear", "wide", "narrow", "point")
LEARNED = replace(LORA, rank=3, alpha=6)
CHANGES = [{}, {"rslora": True}, {"gaussian": True}, {"dora": True}]


class Model(nn.Module):
    """Every kind of layer that a LoRA is put on."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({
            "wide": nn.Conv2d(4, 6, 3, stride=2, padding=1), "narrow": nn.Conv2d(6, 5, (3, 1), padding=(1, 0)),
            "point": nn.Conv2d(5, 8, 1, bias=False), "linear": nn.Linear(8, 7), "last": nn.Linear(7, 2),
        })  # fmt: skip

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for name in ("wide", "narrow", "point"):
            features = self.parts[name](features).tanh()
        features = self.parts["linear"](features.flatten(2).transpose(1, 2))
        return self.parts["last"](features)


def both(recipe: Recipe, dtype: torch.dtype = torch.float32, model: nn.Module | None = None) -> tuple[nn.Module, ...]:
    """The same model with our layers and with peft's, from the same seed, each with the same B."""
    torch.manual_seed(0)
    theirs = (Model() if model is None else model).to(dtype).requires_grad_(False)
    ours = deepcopy(theirs)
    torch.manual_seed(7)
    lora.attach(ours, ENDS, recipe, NAME)
    torch.manual_seed(7)
    config = peft.LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, use_dora=recipe.dora, use_rslora=recipe.rslora,
        target_modules=list(ENDS), init_lora_weights="gaussian" if recipe.gaussian else True,
    )  # fmt: skip
    theirs = peft.inject_adapter_in_model(config, theirs, NAME)
    return ours, theirs


def learning(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in module.named_parameters() if "lora_" in name}


def moved(*modules: nn.Module) -> None:
    """B as after some learning, and magnitudes other than the norms."""
    for module in modules:
        random = torch.Generator().manual_seed(3)
        for name, parameter in learning(module).items():
            if "lora_A" not in name:
                parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)


def answer_and_gradients(module: nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    features = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        answer = module(features)
    answer.float().square().sum().backward()
    gradients = {name.removesuffix(".weight"): one.grad for name, one in learning(module).items()}
    return answer.detach().float(), gradients | {"features": features.grad}  # type: ignore[return-value]


def near(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).norm() <= tolerance * theirs.norm())


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_seed_starts_as_in_peft_and_the_adapted_model_as_the_base(change: dict[str, bool]) -> None:
    ours, theirs = both(replace(LEARNED, **change))
    assert [name.removesuffix(".weight") for name in learning(ours)] == [
        name.removesuffix(".weight") for name in learning(theirs)
    ]
    for one, other in zip(learning(ours).values(), learning(theirs).values(), strict=True):
        assert one.dtype == torch.float32 and torch.allclose(one, other, atol=1e-6) and one.requires_grad
        assert change.get("dora") or torch.equal(one, other)
    torch.manual_seed(0)
    plain = Model()
    features = torch.randn(2, 4, 9, 8)
    assert torch.allclose(ours(features), plain(features), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_answers_and_gradients_are_pefts(change: dict[str, bool], dtype: torch.dtype) -> None:
    ours, theirs = both(replace(LEARNED, **change))
    moved(ours, theirs)
    answer, gradients = answer_and_gradients(ours, dtype)
    wanted, theirs_gradients = answer_and_gradients(theirs, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    assert near(answer, wanted, tolerance) and gradients.keys() == theirs_gradients.keys()
    for name, gradient in gradients.items():
        assert near(gradient, theirs_gradients[name], tolerance), name


def test_a_base_that_rests_in_half_precision_learns_in_float32_without_autocast() -> None:
    ours, theirs = both(LEARNED, torch.bfloat16)
    moved(ours, theirs)
    features = torch.randn(2, 4, 9, 8).bfloat16()
    answer = ours(features)
    assert answer.dtype == torch.bfloat16 and near(answer.float(), theirs(features).float(), 3e-2)
    assert {one.dtype for one in learning(ours).values()} == {torch.float32}


def test_a_layer_in_eight_bits_learns_as_the_one_that_it_is_rounded_from() -> None:
    torch.manual_seed(0)
    whole = nn.ModuleDict({"linear": nn.Linear(64, 32)})
    small = nn.ModuleDict({"linear": Int8Linear(whole["linear"])})  # type: ignore[arg-type]
    features, answers = torch.randn(3, 64), []
    for module in (whole, small):
        torch.manual_seed(5)
        lora.attach(nn.ModuleDict({"parts": module}), ("linear",), LEARNED, NAME)
        moved(module)
        answers.append(module["linear"](features))
    assert near(answers[1], answers[0], 1e-2) and isinstance(small["linear"].base_layer, Int8Linear)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_is_stored_is_named_as_peft_names_it_and_its_configuration_makes_the_same_lora(
    change: dict[str, bool],
) -> None:
    ours, theirs = both(replace(LEARNED, **change))
    moved(ours, theirs)
    tensors, config = lora.lora_state_dict(ours)
    wanted = peft.get_peft_model_state_dict(theirs, adapter_name=NAME)
    assert {name: one.shape for name, one in tensors.items()} == {name: one.shape for name, one in wanted.items()}
    torch.manual_seed(0)
    again = peft.inject_adapter_in_model(peft.LoraConfig(**json.loads(json.dumps(config))), Model())
    loaded = peft.set_peft_model_state_dict(again, dict(tensors))
    assert not loaded.unexpected_keys
    features = torch.randn(2, 4, 9, 8)
    assert torch.allclose(again(features), ours(features), atol=1e-5)


def test_the_configuration_has_the_rank_of_each_layer() -> None:
    config = peft.LoraConfig(
        **lora.config_of({"parts.wide": 2, "parts.linear": 5}, {"parts.wide": 2, "parts.linear": 5})
    )
    shapes = {
        name: tuple(one.shape) for name, one in learning(peft.inject_adapter_in_model(config, Model())).items()
        if "lora_B" in name
    }  # fmt: skip
    assert sorted(shape[1] for shape in shapes.values()) == [2, 5]


def test_switched_off_it_is_the_base_and_afterwards_as_adapted_as_before() -> None:
    module, features = Model().requires_grad_(False), torch.randn(2, 4, 9, 8)
    plain = module(features)
    lora.attach(module, ENDS, LEARNED, NAME)
    moved(module)
    adapted = module(features)
    with lora.switched_off(module):
        with lora.switched_off(module):
            assert torch.equal(module(features), plain)
        assert torch.equal(module(features), plain)
    assert torch.equal(module(features), adapted) and not torch.equal(adapted, plain)


def test_detached_the_very_same_layers_are_there_and_nothing_else(folders, tmp_path: Path) -> None:
    base = load(folders("sd1"))
    before = {part: list(module.named_modules()) for part, module in base.adaptable.items()}
    told = {part: [set(vars(one)) for _, one in modules] for part, modules in before.items()}
    parameters = attach_fresh(base, replace(LORA, text_encoder=True), NAME, 1)
    assert [one for module in base.adaptable.values() for one in learning(module).values()] == parameters
    with pytest.raises(ValueError, match="already"):
        attach_fresh(base, LORA, NAME, 1)
    save_lora(base, AdapterFacts("zk1", "man", "lora", base.source, {}, 1), tmp_path / FILE)
    assert load_file(tmp_path / FILE).keys() == {
        f"{part}.{name.replace(f'.{NAME}', '')}" for part, module in base.adaptable.items() for name in learning(module)
    }
    with safe_open(tmp_path / FILE, "pt") as reader:
        config = json.loads(reader.metadata()[LORA_METADATA])
    assert {key.partition(".")[0] for key in config} == set(base.adaptable) and config["unet.r"] == LORA.rank
    detach(base)
    for part, module in base.adaptable.items():
        found = list(module.named_modules())
        assert all(
            name == other and one is same for (name, one), (other, same) in zip(found, before[part], strict=True)
        )
        assert [set(vars(one)) for _, one in found] == told[part]
        assert not any(one._forward_hooks or one._forward_pre_hooks for _, one in found)


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        lora.attach(Model(), ("nowhere",), LEARNED, NAME)
