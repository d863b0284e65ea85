"""The training engine: loop, checkpoints, folders, logs."""
