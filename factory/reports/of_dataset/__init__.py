"""The report of a dataset, one module per part of it.

Statistics come from samples.parquet, pictures from the shards that hold the chosen samples, one
sample in memory at a time: the size of the report does not grow with that of the dataset.
"""

from factory.reports.of_dataset.report import Evidence, dataset_page

__all__ = ["Evidence", "dataset_page"]
