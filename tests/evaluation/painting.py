"""The model that is evaluated: it learns an album by `engine train`, and draws prompts as `engine imagine` does."""

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image


class Refused(Exception):
    """The product refused the album; the text is what it says to the user."""


@dataclass(frozen=True)
class Request:
    """Pictures that are asked for: `count` with the seeds from `seed` on."""

    text: str
    seed: int
    count: int
    size: tuple[int, int]
    """Width and height, as a proportion."""
    avatar: Path | None


class Painter(Protocol):
    """What the evaluation asks of a model."""

    def learn(self, album: Path, token: str, noun: str, out: Path) -> dict[str, Any]:
        """Learn the pictures in a folder under a token, and write the avatar into `out`. Returns figures of the run.

        Raises:
            Refused: the album was refused.
        """
        ...

    def draw(self, requests: Sequence[Request]) -> list[list[Image.Image]]:
        """The pictures of each request."""
        ...


class EnginePainter:
    """The engine with one base model."""

    def __init__(self, base: str, options: Sequence[str] = (), steps: int | None = None) -> None:
        """
        Args:
            base: as `--base` of the engine.
            options: further options of `engine train`.
            steps: denoising steps; None leaves them to the base.
        """
        self.source, self.options, self.steps = base, tuple(options), steps
        self.base: Any = None

    def learn(self, album: Path, token: str, noun: str, out: Path) -> dict[str, Any]:
        from engine import __main__ as engine

        self.base = None  # the command loads its own
        out.mkdir(parents=True, exist_ok=True)
        arguments = ["train", "--photos", str(album), "--token", token, "--class", noun, "--out", str(out)]
        arguments += ["--overwrite"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = engine.main([*arguments, "--base", self.source, "--json", *self.options])
        (out / "train.log").write_text(said.getvalue())
        lines = said.getvalue().strip().splitlines()
        if status:
            raise Refused(lines[-1] if lines else "no reason was given")
        figures: dict[str, Any] = json.loads(lines[-1])
        return figures

    def draw(self, requests: Sequence[Request]) -> list[list[Image.Image]]:
        from engine.adapters.adapters import Attached
        from engine.adapters.file import FILE
        from engine.bases.base import BaseModel, drawing_dtype
        from engine.drawing.drawing import Drawing
        from engine.measuring.evaluation import draw_in_batches

        if self.base is None:
            self.base = BaseModel.load(self.source, denoiser_dtype=drawing_dtype)
        drawings = []
        for one in requests:
            width, height = pixels_of(one.size, self.base.side, self.base.multiple)
            avatars = (one.avatar / FILE,) if one.avatar else ()
            drawings.append(
                Drawing(
                    one.text, one.count, one.seed, self.steps, width=width, height=height, avatars=avatars
                )
            )  # fmt: skip
        return draw_in_batches(self.base, Attached(self.base), drawings)


def pixels_of(size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """Width and height in pixels: `side` for the shorter one, and multiples of `multiple`."""
    across, down = (round(side * one / min(size) / multiple) * multiple for one in size)
    return across, down


@contextlib.contextmanager
def home(folder: Path) -> Iterator[None]:
    """The engine's own files, such as class pictures, lie in `folder`."""
    import os

    before = os.environ.get("AVATAR_HOME")
    os.environ["AVATAR_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["AVATAR_HOME"]
        else:
            os.environ["AVATAR_HOME"] = before
