"""The name of an adapter's file. It stands apart from `adapters.py`, which loads torch."""

FILE = "adapter.safetensors"
