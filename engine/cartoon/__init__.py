"""The drawn world, wider than that of `engine.toon`: heads that turn, any colour, places, costumes and things."""

SIZE = 256
"""Width and height in pixels of a square picture."""
