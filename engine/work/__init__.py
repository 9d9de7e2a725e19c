"""Service: jobs come in, news goes out."""
