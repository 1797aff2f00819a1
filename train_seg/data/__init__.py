"""From datasets and annotated images to one exact, resumable stream of batches."""
