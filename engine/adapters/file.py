"""The name of an adapter's file, in a module that does not import torch."""

FILE = "adapter.safetensors"
