"""A network from an options section or a weights file; nothing here knows of training."""
