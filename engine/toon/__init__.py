"""The embedded base model: its procedural world, its captions, its judge and its weights."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""The shipped base model, a Stable Diffusion in the standard diffusers layout."""

SIZE = 128
"""Side of the pictures that the embedded base was trained on, in pixels."""
