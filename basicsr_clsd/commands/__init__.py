"""The other commands: ``scripts/`` runs them from a checkout, ``clsd-NAME`` where the package is installed."""
