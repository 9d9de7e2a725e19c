"""Adapters: what a training leaves behind, in files, while it is learned, and applied to the rows of a batch."""
