"""Is it worth it, on this data? Contenders, folds, statistics and the verdict."""
