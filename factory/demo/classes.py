"""The classes of the demo, their colours in masks, and their ids."""

CLASSES = ("background", "red cell", "cytoplasm", "nucleus", "platelet")
PALETTE = ((0, 0, 0), (226, 74, 66), (88, 180, 232), (104, 52, 190), (250, 204, 60))
BACKGROUND, RED_CELL, CYTOPLASM, NUCLEUS, PLATELET = range(5)
