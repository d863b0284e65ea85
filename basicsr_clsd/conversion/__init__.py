"""Networks in the languages of other runtimes: for inference by them, and for export."""
