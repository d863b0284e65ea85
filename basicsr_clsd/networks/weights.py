"""Reading weights files, with one clear line for whatever is wrong with them."""

import importlib.util
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from basicsr_clsd.archs import student_of
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.edsr_pytorch import with_basicsr_names
from basicsr_clsd.networks.zoo import model_file

SHOWN_KEYS = 3
SAFETENSORS = '.safetensors'
STATE_DICT = 'state_dict'  # key of many trainers
PARALLEL, COMPILED = 'module.', '_orig_mod.'  # what DataParallel and torch.compile put before names
COUNTS = ('total_ops', 'total_params')  # buffers that thop leaves in every module
UNREADABLE = 'not a readable checkpoint (cut off, damaged or of another kind)'


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds; it is read once.

    Args:
        path: The file.
        content: What was saved in it: a state dict, or state dicts by key.
        header: Texts in the header of a ``.safetensors`` file; empty for others.
    """

    path: Path
    content: Any
    header: Mapping[str, str]

    @classmethod
    def read(cls, model: str | Path) -> 'WeightsFile':
        """Read a file; see :func:`~basicsr_clsd.networks.zoo.model_file`.

        Raises:
            UserError: See :func:`read_file`.
        """
        path = model_file(model)
        if path.suffix.lower() != SAFETENSORS:
            return cls(path, read_file(path), {})
        return cls(path, *_read_safetensors(path))

    def weights(self, keys: Sequence[str], option: str = '') -> dict[str, Tensor]:
        """The weights, without what ``DataParallel`` and ``torch.compile`` put before names, and without thop's counts.

        Args:
            keys: The first of these that the file has; a file that is a state dict, or that has one under
                ``state_dict``, needs none.
            option: Key of the options that ``keys`` are from; without one the only state dict of the file will do.

        Raises:
            UserError: Names what was expected and what was found.
        """
        content: Mapping[Any, Any] = self.content if isinstance(self.content, Mapping) else {}
        weights: Any = content
        if not _is_state_dict(content):
            key = self.key(keys, option)
            if key is None:
                names = list(map(str, content))
                found = f'it has {", ".join(names[:SHOWN_KEYS])}{_more(names, SHOWN_KEYS)}' if names else 'it is empty'
                wanted = f"under the key '{keys[-1]}'" if keys else 'that are the file itself'
                wanted += f' ({option})' if option else ''
                raise UserError(f'{self.path}: no weights {wanted}; {found}')
            weights = content[key]
            if not _is_state_dict(weights):
                raise UserError(f"{self.path}: what is under '{key}' is not a state dict")
        return {
            str(name).replace(COMPILED, '').removeprefix(PARALLEL): value
            for name, value in weights.items()
            if str(name).rpartition('.')[2] not in COUNTS
        }

    def key(self, keys: Sequence[str], option: str = '') -> str | None:
        """Which key the weights are under, see :meth:`weights`; None: the file is a state dict, or has none."""
        content = self.content if isinstance(self.content, Mapping) and not _is_state_dict(self.content) else {}
        only = [key for key, value in content.items() if _is_state_dict(value)]
        others = only if len(only) == 1 and not option else []
        return next((key for key in (*keys, STATE_DICT, *others) if key in content), None)


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


def read_file(path: str | Path) -> Any:
    """Load a file of ``torch.save``, without executing anything it holds.

    Raises:
        UserError: The file is missing, unreadable, cut off, or holds more than tensors and plain values.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'{path}: no such file')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of torch, on what is odd in a damaged file
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f'{path}: not a checkpoint, or one that holds more than tensors and plain values') from error
    except Exception as error:  # torch raises whatever it runs into, assertions included
        raise UserError(f'{path}: {UNREADABLE}') from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if importlib.util.find_spec('safetensors') is None:
        raise UserError(f"{path}: safetensors is not installed; pip install 'basicsr-clsd[deploy]'")
    from safetensors import safe_open  # noqa: PLC0415  (an extra)

    try:
        with safe_open(path, 'pt') as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # its errors have no common base
        raise UserError(f'{path}: {UNREADABLE}') from error


def params(network: nn.Module, average: nn.Module | None) -> dict[str, dict[str, Tensor]]:
    """A file of weights: ``params`` of a network and, if there is one, ``params_ema`` of its moving average."""
    networks = {'params': network, **({} if average is None else {'params_ema': average})}
    return {
        key: {name: value.detach().cpu() for name, value in each.state_dict().items()} for key, each in networks.items()
    }


def load_weights(
    network: nn.Module,
    file: str | Path | WeightsFile,
    keys: Sequence[str],
    strict: bool = True,
    option: str = '',
    advice: str = '',
) -> str:
    """Load a file's weights into a network; those of EDSR-PyTorch under its names too.

    Args:
        network: Its student's keys are expected in the file; those of its heads may be there too.
        file: The file, or what names it: see :func:`~basicsr_clsd.networks.zoo.model_file`.
        keys: See :meth:`WeightsFile.weights`.
        strict: Every key must be there; otherwise only keys of equal name and shape are taken.
        option: See :meth:`WeightsFile.weights`.
        advice: What the user may do about weights that do not fit.

    Returns:
        A line for the log: file, key, how many of the network's weights were taken, and which stay at random.

    Raises:
        UserError: Names the path, what was expected and what was found.
    """
    file = file if isinstance(file, WeightsFile) else WeightsFile.read(file)
    path, expected = file.path, network.state_dict()
    found = with_basicsr_names(file.weights(keys, option), student_of(network), path)
    missing = [name for name in student_of(network).state_dict() if name not in found]
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
        raise UserError(f'{path}: does not fit {type(network).__name__}: {"; ".join(faults)}{advice}')
    fitting = {name: value for name, value in found.items() if name in expected and name not in misshapen}
    if not fitting:
        raise UserError(f'{path}: no key of it fits {type(network).__name__}')
    network.load_state_dict(fitting, strict=False)
    left = [name for name in expected if name not in fitting]
    at_random = f'; {", ".join(left[:SHOWN_KEYS])}{_more(left, SHOWN_KEYS)} start at random' if left else ''
    key = file.key(keys, option)
    where = '' if key is None else f', {key}'
    return f'Weights from {path}{where}: {len(fitting)} of {len(expected)} tensors taken{at_random}'


def _more(names: list[str], shown: int) -> str:
    return f' and {len(names) - shown} more' if len(names) > shown else ''
