"""Cameras from images, and sparse points from cameras, through pycolmap."""
