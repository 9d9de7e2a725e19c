"""What bot and engine remember and share: records, blobs, queue, events. Imports neither of them, and no torch."""
