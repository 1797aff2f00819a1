"""`factory report`: one HTML file about a dataset, a segmenter or a labeler."""
