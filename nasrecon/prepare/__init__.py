"""Read, check and refine a scene: the one way to a prepared scene."""
