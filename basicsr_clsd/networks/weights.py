"""Reading weights files, with one clear line for whatever is wrong with them."""

import importlib.util
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.edsr_pytorch import with_basicsr_names

SHOWN_KEYS = 3
SAFETENSORS = '.safetensors'


@runtime_checkable
class HasStudent(Protocol):
    """A network with parts that exist in training only."""

    def student_state_dict(self) -> Mapping[str, Tensor]:
        """The deployed part's weights, under the keys of its stock arch."""
        ...


def read_file(path: str | Path) -> Any:
    """Load a file of ``torch.save``, without executing anything it holds, or the tensors of a ``.safetensors`` file.

    Raises:
        UserError: The file is missing, unreadable, cut off, or holds more than tensors and plain values.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'{path}: no such file')
    try:
        if path.suffix.lower() == SAFETENSORS:
            return _opened(path)[0]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of torch, on what is odd in a damaged file
            return torch.load(path, map_location='cpu', weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f'{path}: not a checkpoint, or one that holds more than tensors and plain values') from error
    except Exception as error:  # torch raises whatever it runs into, assertions included
        raise UserError(f'{path}: not a readable checkpoint (cut off, damaged or of another kind)') from error


def safetensors_header(path: str | Path) -> dict[str, str]:
    """The texts in the header of a ``.safetensors`` file, that of a file that has none or is of another kind is empty.

    Raises:
        UserError: The file cannot be read.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() != SAFETENSORS:
        return {}
    read_file(path)  # tells what is wrong
    return _opened(path)[1]


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if importlib.util.find_spec('safetensors') is None:
        raise UserError(f"{path}: safetensors is not installed; pip install 'basicsr-clsd[deploy]'")
    from safetensors import safe_open  # noqa: PLC0415  (an extra)

    with safe_open(path, 'pt') as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_weights(path: str | Path, key: str | None, option: str = 'param_key_g') -> Mapping[str, Tensor]:
    """The weights in a file: under ``key``, or, with ``key`` None or for a file that is a bare state dict, its root.

    ``option`` is the key of ``path`` that ``key`` is from.
    """
    content = read_file(path)
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        weights: Any = content
    elif isinstance(content, Mapping) and key in content:
        weights = content[key]
    else:
        keys = list(map(str, content)) if isinstance(content, Mapping) else []
        found = f'it has {", ".join(keys[:SHOWN_KEYS])}{_more(keys, SHOWN_KEYS)}' if keys else 'it has no keys'
        wanted = 'that are the file itself' if key is None else f"under the key '{key}'"
        raise UserError(f'{path}: no weights {wanted} (path.{option}); {found}')
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path}: what is under '{key}' is not a state dict")
    return {str(name).removeprefix('module.'): value for name, value in weights.items()}


def student_state(network: nn.Module) -> Mapping[str, Tensor]:
    """The weights that are deployed: without auxiliary heads, for a network that has them."""
    return network.student_state_dict() if isinstance(network, HasStudent) else network.state_dict()


def load_weights(
    network: nn.Module, path: str | Path, key: str | None, strict: bool = True, option: str = 'param_key_g'
) -> None:
    """Load a file's weights into a network; those of EDSR-PyTorch under its names too.

    Args:
        network: Its student's keys are expected in the file; those of its heads may be there too.
        path: The file.
        key: Key of the weights in the file, ``params`` or ``params_ema``; None for a file that is a state dict.
        strict: Every key must be there; otherwise only keys of equal name and shape are taken.
        option: Key of the options' ``path`` section that ``key`` is from.

    Raises:
        UserError: Names the path, what was expected and what was found.
    """
    expected = network.state_dict()
    found = with_basicsr_names(read_weights(path, key, option), network, path)
    missing = [name for name in student_state(network) if name not in found]
    extra = [name for name in found if name not in expected]
    misshapen = [name for name in found if name in expected and found[name].shape != expected[name].shape]
    if strict and (missing or extra or misshapen):
        faults = []
        if misshapen:
            name = misshapen[0]
            shapes = f'{tuple(expected[name].shape)} expected, {tuple(found[name].shape)} found'
            faults.append(f'{name} has another shape ({shapes})' + _more(misshapen, 1))
        if missing:
            faults.append(f'missing {", ".join(missing[:SHOWN_KEYS])}{_more(missing, SHOWN_KEYS)}')
        if extra:
            faults.append(f'unknown {", ".join(extra[:SHOWN_KEYS])}{_more(extra, SHOWN_KEYS)}')
        raise UserError(f'{path}: does not fit {type(network).__name__}: {"; ".join(faults)}')
    fitting = {name: value for name, value in found.items() if name in expected and name not in misshapen}
    if not fitting:
        raise UserError(f'{path}: no key of it fits {type(network).__name__}')
    network.load_state_dict(fitting, strict=False)


def _more(names: list[str], shown: int) -> str:
    return f' and {len(names) - shown} more' if len(names) > shown else ''
