"""`factory train-labeler`: an ensemble of pixel classifiers from a few annotated images."""
