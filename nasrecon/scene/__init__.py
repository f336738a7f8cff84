"""What follows from the cameras alone: source views and depth ranges."""
