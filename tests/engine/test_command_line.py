"""What the commands take from the settings, and what they tell in words."""

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from engine import recipe
from engine.__main__ import COMMANDS, main, parser
from engine.bases.families import SD1, TOON
from engine.commands.recipe_options import DISTILLATION, FIELDS, PERSON, STYLE
from engine.learning.distillation import DEFAULTS
from engine.recipe import Recipe


@pytest.mark.parametrize(
    ("setting", "options", "opened"),
    [
        ("of/the/operator", [], "of/the/operator"),
        ("of/the/operator", ["--base", "another"], "another"),
        ("of/the/operator", ["--base", "embedded"], None),
        ("", [], None),
        (None, [], None),
    ],
)
def test_the_operators_base_model_is_the_commands_default(
    tmp_path: Path, monkeypatch, capsys, setting: str | None, options: list[str], opened: str | None
) -> None:
    sources: list[str | None] = []

    def refuse(source: str | None = None) -> None:
        sources.append(source)
        raise ValueError("only asked for")

    monkeypatch.chdir(tmp_path)  # there is no .env here
    monkeypatch.delenv("AVATAR_BASE_MODEL", raising=False)
    if setting is not None:
        monkeypatch.setenv("AVATAR_BASE_MODEL", setting)
    monkeypatch.setattr("engine.bases.loading.open_pipeline", refuse)
    monkeypatch.setattr("engine.bases.opening.EmbeddedPipeline", refuse)
    assert main(["imagine", "--prompt", "a man", "--out", str(tmp_path), *options]) == 2
    assert sources == [opened]
    assert "only asked for" in capsys.readouterr().err


def test_the_help_names_the_setting(capsys) -> None:
    for command in ("train", "imagine"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "AVATAR_BASE_MODEL" in capsys.readouterr().out


def options_of(command: str) -> list[argparse.Action]:
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return [action for action in commands.choices[command]._actions if action.dest != "help"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text_with_its_default(command: str) -> None:
    for option in options_of(command):
        assert option.help, option.dest
        said = f"{option.help} {option.container.title}"
        assert option.required or "(default: " in said, option.dest
        if option.option_strings and option.default not in (None, False, [], ""):
            assert f"default: {str(option.default).removesuffix('.0')}" in said, option.dest


def test_the_help_has_the_values_of_the_recipes() -> None:
    """Each number and name of a recipe is in the text of its option."""
    for options, recipes in (
        (PERSON, [family.recipes[method] for family in (SD1, TOON) for method in ("lora", "dreambooth")]),
        (STYLE, [(None, recipe.STYLE)]),
        (DISTILLATION, [(None, one) for one in DEFAULTS.values()]),
    ):
        for per_photo, one in recipes:
            values = {name: getattr(one, field, per_photo) for name, field in FIELDS.items() if name in options}
            for name, value in values.items():
                if (name in ("steps", "size") and options is not DISTILLATION) or value is None:
                    continue
                told = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
                told = f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else told
                told = {"0.0001": "1e-4", "0.001": "1e-3", "0.003": "3e-3", "0.0003": "3e-4"}.get(told, told)
                assert re.search(rf"(^|[ ,;]){re.escape(told)}($|[ ,;])", options[name]), (name, told, options[name])


def test_recipe_options_have_the_names_of_the_recipe_s_fields() -> None:
    fields = {field.name for field in dataclasses.fields(Recipe)} | {"steps_per_photo"}
    for command, most in {"train": 29, "finetune": 25, "study": 25, "evaluate": 5, "distil": 4}.items():
        named = {option.dest for option in options_of(command) if "recipe" in option.container.title}
        assert named <= fields and len(named) == most


def test_a_wrong_setting_is_named_in_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVATAR_GPU_STALL", "-3")
    for command in (["work"], ["base"], ["imagine", "--prompt", "a man", "--out", str(tmp_path)]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "AVATAR_GPU_STALL: " in line and "-3" not in line


class FakeTracker:
    """A tracker that notes the steps at which it gets something, by name."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name in values:
            self.steps.setdefault(name, []).append(step)

    def pictures(self, step: int, name: str, pictures: Sequence[Image.Image]) -> None:
        self.steps.setdefault(name, []).append(step)

    def close(self) -> None:
        self.steps["closed"] = []


def test_likeness_is_measured_while_it_learns(tiny_folder, pictures, tmp_path: Path, monkeypatch) -> None:
    tracker = FakeTracker()
    monkeypatch.setattr("engine.measuring.trackers.open_tracker", lambda *arguments: tracker)
    monkeypatch.setattr("engine.measuring.likeness.likeness_of", lambda base, album: lambda pictures: 0.5)
    save(pictures, tmp_path / "album")
    assert main([*train(tmp_path, tiny_folder, 4), "--report-to", "tensorboard", "--preview-every", "2"]) == 0
    assert tracker.steps["loss"] == tracker.steps["learning_rate"] == [1, 2, 3, 4]
    assert tracker.steps["samples"] == tracker.steps["score/likeness"] == [2, 4]
    assert "closed" in tracker.steps and (tmp_path / "out" / "previews" / "4.png").exists()


def save(pictures: Sequence[Image.Image], album: Path) -> None:
    album.mkdir()
    for number, picture in enumerate(pictures):
        picture.resize((512, 512)).save(album / f"{number}.png")


def train(folder: Path, base: Path, steps: int) -> list[str]:
    return ["train", "--photos", str(folder / "album"), "--token", "zk1x", "--class", "thing", "--base", str(base),
            "--out", str(folder / "out"), "--steps", str(steps), "--size", "64", "--prior-weight", "0"]  # fmt: skip


def test_the_report_has_the_share_of_the_change_that_a_stored_dreambooth_leaves_out(
    tiny_folder, pictures, tmp_path: Path, capsys
) -> None:
    save(pictures, tmp_path / "album")
    for method in ("dreambooth", "lora"):
        assert main([*train(tmp_path, tiny_folder, 2), "--method", method, "--overwrite", "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        (learned,) = [line for line in lines if line.startswith("Learned")]
        error = json.loads(lines[-1]).get("delta_error")
        assert (error is None) == (method == "lora")
        assert ("of the change" in learned) == (method == "dreambooth")
        assert error is None or f"without {error:.1%} of the change" in learned


def test_a_token_with_words_that_the_base_knows_is_told_with_a_better_one(
    tiny_folder, pictures, tmp_path: Path, capsys
) -> None:
    save(pictures, tmp_path / "album")
    command = train(tmp_path, tiny_folder, 1)
    assert main([*["bob5" if word == "zk1x" else word for word in command], "--json"]) == 0
    told = capsys.readouterr()
    figures = json.loads(told.out.splitlines()[-1])
    assert figures["token"] == "bob5" and figures["token_known"]["known"] == ["bob"]
    assert "(bob)" in told.err and f"A better --token is {figures['token_known']['proposal']}." in told.err
    assert main(["train", "--photos", str(tmp_path), "--token", "thing7", "--class", "thing", "--out", "x"]) == 2
    assert "holds the class noun thing" in capsys.readouterr().err


def test_what_a_base_does_not_read_of_a_prompt_is_printed(tiny_folder, tmp_path: Path, capsys) -> None:
    imagine = ["imagine", "--steps", "1", "--out", str(tmp_path), "--base", str(tiny_folder), "--json", "--prompt"]
    for prompt, unread in (("a (big:1.3) man", ""), ("man " * 247 + "dog", "")):
        assert main([*imagine, prompt]) == 0
        figures = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (figures["unread"], figures["whole_prompt_read"], figures["weights_ignored"]) == (unread, True, False)
    dense = "a," * 450 + " dog"  # two tokens for two characters
    assert main([*imagine, dense]) == 0
    out = capsys.readouterr().out
    assert "could not read the end of the prompt: " in out and json.loads(out.splitlines()[-1])["unread"].endswith(
        "dog"
    )
    assert main([*imagine, "a man <lora:inks:0.8>"]) == 2
    assert "--style inks --weight 0.8" in capsys.readouterr().err
