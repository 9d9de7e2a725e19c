"""Measuring: how good is what was learned."""
