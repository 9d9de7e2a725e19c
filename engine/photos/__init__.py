"""Photos: decoding, faces, verdicts, crops."""
