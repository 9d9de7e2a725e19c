"""Adapters leave for other programs and come from them, and draw the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.adapters.adapters import FILE, Attached, facts_of
from engine.adapters.exchange import export, import_lora, imported_facts
from engine.drawing.drawing import draw
from storage.errors import UserError
from tests.engine.learning import learn
from tests.engine.tiny import LORA, asked, assert_same, load, plainly

FAMILIES = ("sd1", "sd2", "sdxl", "klein")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_lora_draws_the_same_in_plain_diffusers_and_when_it_comes_back(
    folders, family: str, pictures, tmp_path: Path, exact
) -> None:  # fmt: skip
    base = load(folders(family))
    recipe = replace(LORA, alpha=8, text_encoder=bool(base.family.text_targets))
    learn(base, pictures, recipe, tmp_path / FILE, side=64)
    attached = Attached(base)
    ours = draw(base, attached, asked(tmp_path))[0].image
    for form in ("diffusers", "kohya"):
        file = tmp_path / f"{form}.safetensors"
        layers = export(base, tmp_path, form, file)
        keys = load_file(file).keys()
        assert layers > 0 and not any("zk1" in key for key in keys)
        if form == "kohya" and family != "klein":
            start = (
                "lora_te1_text_model_encoder_layers_0" if family == "sdxl" else "lora_te_text_model_encoder_layers_0"
            )
            assert any(key.startswith(start) for key in keys)
        assert_same(plainly(folders(family), family, file), ours)
        back = tmp_path / f"{form}-back"
        import_lora(base, file, imported_facts(base, "avatar", "zk1", "man"), back / FILE)
        assert (facts_of(back).token, facts_of(back).noun) == ("zk1", "man")
        assert_same(draw(base, attached, asked(back))[0].image, ours)


def test_a_file_of_another_base_or_kind_is_refused(folders, tmp_path: Path) -> None:
    base, file = load(folders("sd1")), tmp_path / "theirs.safetensors"
    facts = imported_facts(base, "style")
    for tensors in (
        {f"lora_unet_nowhere.lora_{way}.weight": torch.zeros(4, 4) for way in ("down", "up")},
        {"unet.conv_in.lora_A.weight": torch.zeros(4, 4, 3, 3)},
        {"unet.conv_in.lora_A.weight": torch.zeros(4, 5, 3, 3), "unet.conv_in.lora_B.weight": torch.zeros(32, 4, 1, 1)},
    ):  # fmt: skip
        save_file(tensors, file)
        with pytest.raises(UserError, match="bad_adapter"):
            import_lora(base, file, facts, tmp_path / "out" / FILE)
    pickled = tmp_path / "theirs.pt"
    torch.save({"unet": torch.zeros(1)}, pickled)
    with pytest.raises(UserError, match="bad_adapter"):
        import_lora(base, pickled, facts, tmp_path / "out" / FILE)
    assert not (tmp_path / "out").exists()
