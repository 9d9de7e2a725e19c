"""What the commands take from the settings, and what they tell in words."""

import json
from pathlib import Path

import pytest

from engine.__main__ import main
from engine.toon import WEIGHTS


@pytest.mark.parametrize(
    ("setting", "options", "opened"),
    [
        ("of/the/operator", [], "of/the/operator"),
        ("of/the/operator", ["--base", "another"], "another"),
        ("of/the/operator", ["--base", "embedded"], str(WEIGHTS)),
        ("", [], str(WEIGHTS)),
        (None, [], str(WEIGHTS)),
    ],
)
def test_the_operators_base_model_is_the_commands_default(
    tmp_path: Path, monkeypatch, capsys, setting: str | None, options: list[str], opened: str
) -> None:
    sources: list[str] = []

    def refuse(source: str) -> None:
        sources.append(source)
        raise ValueError("only asked for")

    monkeypatch.chdir(tmp_path)  # no .env of whoever tests
    monkeypatch.delenv("AVATAR_BASE_MODEL", raising=False)
    if setting is not None:
        monkeypatch.setenv("AVATAR_BASE_MODEL", setting)
    monkeypatch.setattr("engine.base.open_pipeline", refuse)
    assert main(["imagine", "--prompt", "a man", "--out", str(tmp_path), *options]) == 2
    assert sources == [opened]
    assert "only asked for" in capsys.readouterr().err


def test_the_help_names_the_setting(capsys) -> None:
    for command in ("train", "imagine"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "AVATAR_BASE_MODEL" in capsys.readouterr().out


def test_the_text_tells_what_a_stored_dreambooth_leaves_out(tiny_folder, pictures, tmp_path: Path, capsys) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for number, picture in enumerate(pictures):
        picture.resize((512, 512)).save(album / f"{number}.png")
    train = ["train", "--photos", str(album), "--token", "zk1x", "--class", "thing", "--base", str(tiny_folder),
             "--out", str(tmp_path / "out"), "--steps", "2", "--size", "64", "--prior-weight", "0",
             "--json"]  # fmt: skip
    for method in ("dreambooth", "lora"):
        assert main([*train, "--method", method]) == 0
        lines = capsys.readouterr().out.splitlines()
        (learned,) = [line for line in lines if line.startswith("Learned")]
        error = json.loads(lines[-1]).get("delta_error")
        assert (error is None) == (method == "lora")
        assert ("of the change" in learned) == (method == "dreambooth")
        assert error is None or f"without {error:.1%} of the change" in learned
