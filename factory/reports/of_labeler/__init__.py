"""The report of a labeler."""

from factory.reports.of_labeler.report import Folds, labeler_page

__all__ = ["Folds", "labeler_page"]
