"""Base models: opening one, its family, its noise schedule."""
