"""What bot and engine remember and share: records, blobs, queue, events. Imports no bot, engine or torch."""
