"""Trained networks for other programs: ONNX files in three precisions, and weights under other projects' names."""
