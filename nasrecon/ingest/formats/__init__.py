"""One module for each format of posed image sets."""
