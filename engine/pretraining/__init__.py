"""Pre-training: the scripts that made the embedded base's weights.

Each ran once, and is kept so that its weights can be made again. Nothing in service imports them.
"""
