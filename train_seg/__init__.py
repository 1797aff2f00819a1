"""How to train, run and score a segmenter on a dataset."""
