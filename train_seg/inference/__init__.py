"""Using a trained segmenter: predictions on disk, large images, other runtimes."""
