"""Adapters leave for other programs and come from them, and draw the same."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine.adapters.adapters import FILE, Attached, facts_of
from engine.adapters.card import Format, person_of
from engine.adapters.exchange import export, import_lora, imported_facts, person_in
from engine.drawing.drawing import draw
from engine.tensor_files import read_metadata
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


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_an_exported_file_has_a_card_that_names_the_person(folders, pictures, tmp_path: Path, form: Format) -> None:
    base = load(folders("sd1"))
    learn(base, pictures, replace(LORA, alpha=8, text_encoder=True), tmp_path / FILE, side=64)
    file = tmp_path / "out.safetensors"
    export(base, tmp_path, form, file, "cc-by-4.0", pictures[0])
    header = read_metadata(file)
    assert header["modelspec.trigger_phrase"] == "zk1 man" and header["modelspec.license"] == "cc-by-4.0"
    assert json.loads(header["ss_tag_frequency"]) == {"album": {"zk1 man": 1}}
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("4", "8")
    assert (header["modelspec.resolution"], header["ss_steps"]) == ("64x64", "4")
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    kind, _, encoded = header["modelspec.thumbnail"].partition(",")
    assert kind == "data:image/jpeg;base64" and Image.open(io.BytesIO(base64.b64decode(encoded))).format == "JPEG"
    assert person_in(file) == ("zk1", "man")
    assert person_in(tmp_path / FILE) is None and person_in(tmp_path / "nowhere.safetensors") is None
    text = [key for key in load_file(file) if key.startswith(("text_encoder.", "lora_te_"))]
    assert text and all("text_model" in key for key in text), "programs on transformers 4 need text_model"


@pytest.mark.parametrize(
    ("trigger", "person"),
    [("ohwx man", ("ohwx", "man")), ("inks", None), ("a photo of zk1 man", None), ("the man", None), ("", None)],
)
def test_a_card_names_a_person_by_two_words(trigger: str, person: tuple[str, str] | None) -> None:
    assert person_of({"modelspec.trigger_phrase": trigger}) == person


def test_a_card_that_names_a_minor_is_refused() -> None:
    with pytest.raises(UserError, match="minor"):
        person_of({"modelspec.trigger_phrase": "ohwx girl"})
