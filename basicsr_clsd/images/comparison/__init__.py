"""Two versions of an image with a line between them, in a browser: what the report and the page that upscales share."""

from pathlib import Path

FOLDER = Path(__file__).parent
STYLE = 'comparison.css'
SCRIPTS = ('camera.js', 'comparison.js')  # in the order of their needs


def part(name: str) -> str:
    """The text of one of the files."""
    return (FOLDER / name).read_text(encoding='utf-8')
