"""Parts of this project for other programs; each module registers itself when it is imported."""
