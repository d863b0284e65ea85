"""What is wrong with a data set: files, pairs, kernels, near duplicates."""
