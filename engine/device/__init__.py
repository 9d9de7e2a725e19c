"""This machine: dtypes, memory, cores, and what is fast on them."""
