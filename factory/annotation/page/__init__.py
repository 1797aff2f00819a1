"""The labelling page: a small server on this machine, and the page that it serves.

folder     pictures and masks on disk, and which images are finished
assist     features, and an ensemble that is retrained after every stroke
changes    what open pages wait for
security   who may ask
app        requests -> the modules above
serving    socket, token, browser
static/    the page: hand-written HTML, CSS and JavaScript modules
"""
