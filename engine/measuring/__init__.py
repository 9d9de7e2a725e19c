"""Measurements of learned avatars: likeness, prompt following, overfitting."""
