"""Measuring networks: metrics, tables, pictures."""
