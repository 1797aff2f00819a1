"""`factory train-labeler`: what labels pixels, trained on a few annotated images."""
