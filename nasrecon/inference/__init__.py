"""From a prepared scene and a network to estimates."""
