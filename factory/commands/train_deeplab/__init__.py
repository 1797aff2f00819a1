"""`factory train-deeplab`: a segmenter from datasets and annotated folders."""
