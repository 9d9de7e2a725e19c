"""headgear."""

from engine.toon.things.drawing import Thing

THINGS: tuple[Thing, ...] = ()
