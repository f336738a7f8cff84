"""Training: procedural worlds, losses, loop. torch and imageio only."""
