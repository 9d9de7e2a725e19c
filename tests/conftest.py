"""What tests of several folders use. Nothing here imports torch unless a test asks for a model."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from engine.bases.base import BaseModel

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1.x of the real classes with random weights, small enough to train within seconds."""
    from tests.engine import tiny

    return tiny.save("sd1", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_folder: Path) -> "BaseModel":
    """The same, loaded for one test: training attaches adapters to it."""
    from tests.engine import tiny

    return tiny.load(tiny_folder)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Five small pictures that differ."""
    album = []
    for number in range(5):
        picture = Image.new("RGB", (72, 64), (200, 40 * number, 90))
        ImageDraw.Draw(picture).ellipse((10 + number, 10, 50, 50), fill=(30, 160, 40 * number))
        album.append(picture)
    return album
