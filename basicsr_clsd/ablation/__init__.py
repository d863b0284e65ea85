"""Many trainings and tests from one plan, and their summary."""
