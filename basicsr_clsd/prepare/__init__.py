"""Preparing data sets before any training: archives, folders of photos, LMDB."""
