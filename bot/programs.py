"""The programs that an avatar can be exported for."""

from collections.abc import Mapping

PROGRAMS: Mapping[str, tuple[str, str]] = {
    "webui": ("WebUI", "kohya"), "comfyui": ("ComfyUI", "kohya"), "diffusers": ("diffusers", "diffusers"),
}  # fmt: skip
"""By the word that people write: the program's name, and the format of its files (`engine.adapters.card.Format`)."""
