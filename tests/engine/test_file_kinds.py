"""Adapter files of every kind draw what their writers mean, or are refused by name."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.adapters import exchange
from engine.adapters.adapters import FILE, Attached
from engine.adapters.applied import pattern_value
from engine.adapters.card import Format
from engine.adapters.exchange import export, import_lora, imported_facts
from engine.adapters.low_rank import balanced, nearest
from engine.sentences import sentence
from engine.tensor_files import copy_tensors, read_metadata
from storage.errors import UserError
from tests.engine import tiny
from tests.engine.file_kinds import (
    DRAWN,
    KINDS,
    LIMIT,
    Kind,
    Written,
    composed,
    dora,
    drawings,
    flux2,
    kohya,
    loha,
    lora,
    lora_factors,
    merged,
    outcome,
    prediction,
    sd1_plain,
    weight_of,
)

Folders = Callable[[str], Path]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_file_draws_what_its_writer_means_or_is_refused_by_name(
    folders: Folders, tmp_path: Path, exact: None, kind: Kind
) -> None:
    found = outcome(kind, tiny.load(folders(kind.family)), tmp_path)
    if kind.refused:
        assert kind.refused in found.refusal
        assert not (tmp_path / "ours").exists(), "a refused file leaves nothing"
    else:
        assert not found.refusal and found.error <= LIMIT
        assert bool(found.notes) == bool(kind.noted) and kind.noted in " ".join(found.notes)


def written_file(written: Written, file: Path) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in written.tensors.items()}, file)
    return file


def restored(folders: Folders, family: str, written: Written, tmp_path: Path) -> float:
    """The error of what is imported, exported in kohya's format and imported again."""
    base, facts = tiny.load(folders(family)), imported_facts(tiny.load(folders(family)), "style")
    import_lora(base, written_file(written, tmp_path / "theirs.safetensors"), facts, tmp_path / "once" / FILE)
    export(base, tmp_path / "once", "kohya", tmp_path / "exported.safetensors")
    import_lora(base, tmp_path / "exported.safetensors", facts, tmp_path / "twice" / FILE)
    attached = Attached(base)
    plain = prediction(base, base.unet)
    with attached.applied([attached.checked([(tmp_path / "twice", 1.0)])]) as denoiser:
        ours = prediction(base, denoiser)
    with merged(base, written.merged):
        wanted = prediction(base, base.unet)
    return float((ours - wanted).norm() / (wanted - plain).norm())


@pytest.mark.parametrize("axis", [0, 1], ids=["outputs", "inputs"])
def test_magnitudes_come_through_an_export_in_kohyas_format(
    folders: Folders, tmp_path: Path, exact: None, axis: int
) -> None:
    base = tiny.load(folders("sd1"))
    written = composed(lambda *layer: dora(lora, axis, *layer), kohya(base, ("conv1", "to_k"), ""), base)
    assert restored(folders, "sd1", written, tmp_path) <= LIMIT


def test_magnitudes_of_fused_layers_come_through_an_export_in_kohyas_format(
    folders: Folders, tmp_path: Path, exact: None
) -> None:
    written = flux2(tiny.load(folders("klein")), lambda *layer: dora(lora, 0, *layer), outside=True)
    assert restored(folders, "klein", written, tmp_path) <= LIMIT
    assert any(key.endswith("qkv.dora_scale") for key in load_file(tmp_path / "exported.safetensors"))


@pytest.mark.parametrize(("family", "form"), [("sd1", "diffusers"), ("klein", "kohya"), ("klein", "diffusers")])
def test_magnitudes_that_a_format_cannot_hold_are_refused_at_the_export(
    folders: Folders, tmp_path: Path, family: str, form: Format
) -> None:
    base = tiny.load(folders(family))
    inputs = [kind for kind in KINDS if "DoRA of inputs" in kind.name and kind.family == family]
    file = written_file(inputs[0].write(base), tmp_path / "theirs.safetensors")
    import_lora(base, file, imported_facts(base, "style"), tmp_path / "in" / FILE)
    with pytest.raises(UserError, match="magnitudes_stay") as refused:
        export(base, tmp_path / "in", form, tmp_path / "out.safetensors")
    assert form in sentence(refused.value) and not (tmp_path / "out.safetensors").exists()


def test_a_rank_too_large_is_refused_with_the_best_approximation_and_its_error(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.load(folders("sd1"))
    named = kohya(base, ("attn1.to_q", "attn2.to_q"), "")
    written = composed(lambda *layer: loha(*layer, rank=5), named, base)
    file, facts = written_file(written, tmp_path / "theirs.safetensors"), imported_facts(base, "style")
    exact = import_lora(base, file, facts, tmp_path / "exact" / FILE)
    assert exact.error == 0 and exact.kinds == {"LoHa": len(named)}
    size = sum(2 * 25 * 2 * 64 for _ in named)
    monkeypatch.setattr(exchange, "LARGEST", size - 1)
    with pytest.raises(UserError, match="rank_too_large") as refused:
        import_lora(base, file, facts, tmp_path / "large" / FILE)
    assert refused.value.facts["rank"] == 16 and "--rank 16" in sentence(refused.value)
    found = import_lora(base, file, facts, tmp_path / "large" / FILE, rank=16)
    assert round(100 * found.error, 1) == refused.value.facts["percent"]
    lost = whole = 0.0
    for part, name in named:
        weight = weight_of(base, part, name)
        change = written.merged[part, name] - weight
        values = torch.linalg.svdvals(change).square()
        lost, whole = lost + float(values[16:].sum()), whole + float(values.sum())
    assert found.error == pytest.approx((lost / whole) ** 0.5, rel=1e-3) and found.error > 0.01
    kept = load_file(tmp_path / "large" / FILE)
    assert {len(tensor) for key, tensor in kept.items() if key.endswith("lora_A.weight")} == {16}


def test_what_cannot_be_drawn_is_refused_at_the_import(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.load(folders("sd1"))
    file = written_file(sd1_plain(base), tmp_path / "theirs.safetensors")
    predict = type(base.family).predict
    monkeypatch.setattr(type(base.family), "predict", lambda *parts: predict(*parts) * float("nan"))
    with pytest.raises(UserError, match="bad_adapter") as refused:
        import_lora(base, file, imported_facts(base, "style"), tmp_path / "out" / FILE)
    assert "not finite" in sentence(refused.value) and not (tmp_path / "out" / FILE).exists()


def test_a_file_with_small_numbers_keeps_them_in_half_precision(folders: Folders, tmp_path: Path, exact: None) -> None:
    """B of 1e-7 would be zero in half precision; the norms of A and B are made equal."""
    base = tiny.load(folders("sd1"))
    written = sd1_plain(base)
    for key, tensor in written.tensors.items():
        if "lora_up" in key:
            written.tensors[key] = tensor * 2.0**-20
        elif "lora_down" in key:
            written.tensors[key] = tensor * 2.0**20
    kind = replace(KINDS[0], write=lambda base: written)
    assert outcome(kind, base, tmp_path).error <= LIMIT


def test_balanced_factors_have_the_same_product_to_the_bit() -> None:
    down, up = lora_factors(torch.randn(20, 30, generator=torch.Generator().manual_seed(1)), 5)
    balanced_down, balanced_up = balanced(down, 1e-4 * up)
    norms = balanced_down.norm(dim=1) / balanced_up.norm(dim=0)
    assert ((norms > 0.49) & (norms < 2.01)).all()
    assert torch.equal(balanced_up[:, :1] * balanced_down[:1], 1e-4 * up[:, :1] * down[:1])


def test_the_nearest_change_of_a_rank_is_that_of_the_singular_values() -> None:
    down, up = lora_factors(torch.randn(20, 30, generator=torch.Generator().manual_seed(1)), 5, 8)
    first, second, lost = nearest(down, up, 3)
    left, values, right = torch.linalg.svd(up @ down)
    assert torch.allclose(second @ first, left[:, :3] * values[:3] @ right[:3], atol=1e-5)
    assert lost == pytest.approx(float(values[3:].square().sum()), rel=1e-4)
    assert nearest(down, up, 8)[2] == 0


@pytest.mark.parametrize(
    ("patterns", "name", "value"),
    [
        ({"to_q": 2, "attn1.to_q": 3}, "mid.attn1.to_q", 2), ({"attn1.to_q": 3, "to_q": 2}, "mid.attn1.to_q", 3),
        ({"^to_q": 2}, "mid.to_q", 9), ({"^mid.to_q": 2}, "mid.to_q", 2), ({"o_q": 2}, "mid.to_q", 9),
        ({r".*attn[12]\.to_[qk]": 5}, "mid.attn2.to_k", 5), ({r"attn2\.to_.": 5}, "attn1.to_k", 9), (None, "to_q", 9),
    ],
)  # fmt: skip
def test_patterns_are_regular_expressions_as_in_peft(patterns: dict[str, int] | None, name: str, value: int) -> None:
    from peft.utils.other import get_pattern_key

    assert pattern_value(patterns, name, 9) == value
    assert (patterns or {}).get(get_pattern_key((patterns or {}).keys(), name), 9) == value
    with pytest.raises(ValueError, match="regular expression"):
        pattern_value({"(": 1}, name, 9)
    with pytest.raises(ValueError, match="no number"):
        pattern_value({".*": "many"}, name, 9)


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_that_of_the_weights_merged_by_hand(
    folders: Folders, tmp_path: Path, exact: None, name: str
) -> None:
    [kind] = [kind for kind in KINDS if kind.name == name]
    ours, reference, plain = drawings(kind, tiny.load(folders(kind.family)), tmp_path)
    tiny.assert_same(ours, reference)
    assert plain.tobytes() != reference.tobytes()


EACH = ("kohya: LoCon", "LoHa, Tucker", "DoRA of outputs", "DoRA of inputs", "float16", "FLUX.2: LoKr on fused layers")


@pytest.mark.parametrize("name", EACH)
def test_on_a_large_base_each_layer_is_applied_once(
    folders: Folders, tmp_path: Path, exact: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    [kind] = [kind for kind in KINDS if kind.name == name]
    monkeypatch.setattr(exchange, "small", lambda base: False)
    monkeypatch.setattr(exchange, "predict_once", None)
    tried: list[str] = []
    each = exchange.apply_each
    monkeypatch.setattr(exchange, "apply_each", lambda module, one: (tried.extend(one), each(module, one)))
    assert outcome(kind, tiny.load(folders(kind.family)), tmp_path).error <= LIMIT
    assert sorted(tried) == sorted(layer for _, layer in kind.write(tiny.load(folders(kind.family))).merged)

    def broken(*given: object) -> torch.Tensor:
        raise RuntimeError("sizes")

    monkeypatch.setattr("engine.adapters.applied._AddLowRank.__call__", broken)
    assert "cannot be applied: sizes" in outcome(kind, tiny.load(folders(kind.family)), tmp_path / "again").refusal


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_lora_in_half_precision_keeps_its_bytes_and_its_scale(
    folders: Folders, tmp_path: Path, exact: None, monkeypatch: pytest.MonkeyPatch, in_kernel: bool
) -> None:
    if not in_kernel:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    [kind] = [kind for kind in KINDS if kind.name == "float16"]
    base = tiny.load(folders("sd1"))
    assert outcome(kind, base, tmp_path).error < LIMIT / 50
    theirs, ours = kind.write(base).tensors, load_file(tmp_path / "ours" / FILE)
    assert len(ours) == 2 * len(kohya(base))
    for (part, name), start in kohya(base).items():
        for letter, way in (("A", "down"), ("B", "up")):
            assert torch.equal(ours[f"{part}.{name}.lora_{letter}.weight"], theirs[f"{start}.lora_{way}.weight"])


def test_tensors_are_copied_under_other_names_whatever_lies_between(tmp_path: Path) -> None:
    tensors = {name: torch.arange(number, number + 5).to(torch.float16) for number, name in enumerate("abcdef")}
    save_file(tensors | {"alpha": torch.ones(3)}, tmp_path / "from.safetensors")
    names = {"a": "one", "b": "two", "d": "three", "f": "four"}
    copy_tensors(tmp_path / "from.safetensors", names, {"said": "so"}, tmp_path / "to.safetensors")
    found = load_file(tmp_path / "to.safetensors")
    assert found.keys() == set(names.values()) and read_metadata(tmp_path / "to.safetensors") == {"said": "so"}
    assert all(torch.equal(found[names[name]], tensors[name]) for name in names)
    with pytest.raises(KeyError):
        copy_tensors(tmp_path / "from.safetensors", {"z": "z"}, {}, tmp_path / "none.safetensors")
