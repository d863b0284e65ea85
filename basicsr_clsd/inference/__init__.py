"""Using trained networks: weights files of every kind, tiles, self-ensemble, photos in and out."""
