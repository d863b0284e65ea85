"""Model files by path, or by their name in the model zoo."""

from pathlib import Path

from basicsr_clsd.errors import UserError, suggest

ZOO = Path(__file__).resolve().parents[1] / 'model_zoo'
ONNX = '.onnx'
SUFFIXES = ('.pth', '.pt', '.safetensors', ONNX)


def model_file(model: str | Path) -> Path:
    """The file of a model: a path, or a name in the model zoo with or without extension.

    Raises:
        UserError: There is none.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path
    zoo = sorted(file for file in ZOO.glob('*') if file.suffix in SUFFIXES)
    found = [file for file in zoo if str(model) in (file.name, file.stem)]
    if found:
        return found[0]
    names = [file.stem for file in zoo]
    hint = suggest(str(model), names)
    listed = f'; the model zoo has {", ".join(names)}' if names and not hint and str(model) == path.stem else ''
    raise UserError(f'{model}: no such file{hint}{listed}')
