"""The segmentation network and the artefact that holds a trained one."""
