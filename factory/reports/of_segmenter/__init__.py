"""The report of a segmenter."""

from factory.reports.of_segmenter.report import Known, segmenter_page
from factory.reports.of_segmenter.scores import Measured, Shown

__all__ = ["Known", "Measured", "Shown", "segmenter_page"]
