"""Features from the middle of a network, by the paths of its modules."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from basicsr.archs.swinir_arch import SwinIR
from torch import Tensor, nn

from basicsr_clsd.errors import UserError

INPUT = ':input'
FEATURE_DIMS = 4
SUGGESTIONS = 3
TOKEN_DIMS = 3
ROW_BY_ROW = (SwinIR,)  # archs whose sequences of tokens are the pixels of the LR image, row by row


Grid = tuple[int, int]


def as_map(feature: Any, grid: Grid | None) -> Any:
    """Fold a sequence of tokens (N, h·w, C) back into a map (N, C, h, w); anything else is returned as it is."""
    if grid is None or not isinstance(feature, Tensor) or feature.ndim != TOKEN_DIMS:
        return feature
    return feature.transpose(1, 2).unflatten(2, grid) if feature.shape[1] == grid[0] * grid[1] else feature


class FeatureTaps:
    """Notes what some modules of a network return, or are given, while it runs within :meth:`recording`.

    A tap is a module's path, as in ``named_modules``: ``body.9`` is its output, ``upsample:input`` its first positional
    argument; of a module that runs several times, the last. Tokens of SwinIR come as maps. Between two recordings
    nothing is held, and the network runs as ever. Copies of the network record nothing. A feature that the network then
    changes in place, as :meth:`trial` finds out, is copied.

    Args:
        network: The bare network, before it is compiled or wrapped.
        taps: The taps; one may be there several times.
        where: Key in the options, for errors.

    Raises:
        UserError: There is no such module; names the nearest.
    """

    def __init__(self, network: nn.Module, taps: Sequence[str], where: str) -> None:
        self.kind, self.where = type(network).__name__, where
        self.taps = tuple(dict.fromkeys(taps))
        self._found: dict[str, Tensor] | None = None
        self._copied: set[str] = set()
        self._grid: Grid | None = None
        self._has_tokens = isinstance(network, ROW_BY_ROW)
        modules = {path: module for path, module in network.named_modules() if path}
        for tap in self.taps:
            path = tap.removesuffix(INPUT)
            if path not in modules:
                nearest = difflib.get_close_matches(path, modules, SUGGESTIONS, cutoff=0.5) or list(network._modules)
                raise UserError(f"{where}: {self.kind} has no module '{path}'; the nearest are {', '.join(nearest)}")
            # Not through `self.network`: the hooks are copied with the network, and what they refer to.
            if tap.endswith(INPUT):
                modules[path].register_forward_pre_hook(partial(self._note_input, tap))
            else:
                modules[path].register_forward_hook(partial(self._note_output, tap))

    def _note_input(self, tap: str, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        if self._found is not None and arguments:
            self._found[tap] = self._kept(tap, arguments[0])

    def _note_output(self, tap: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if self._found is not None:
            self._found[tap] = self._kept(tap, output)

    def _kept(self, tap: str, feature: Any) -> Any:
        return as_map(feature.clone() if tap in self._copied else feature, self._grid)

    @contextmanager
    def recording(self, image: Tensor) -> Iterator[dict[str, Tensor]]:
        """Give a dict that fills with the features, by tap, when the network runs on images (N, 3, h, w).

        It is all that refers to them.
        """
        found: dict[str, Tensor] = {}
        self.start(found, image)
        try:
            yield found
        finally:
            self.stop()

    def start(self, found: dict[str, Tensor], image: Tensor) -> None:
        """Start recording into ``found``: for a network that records itself; ``torch.compile`` fails in a ``with``."""
        self._found, self._grid = found, (image.shape[2], image.shape[3]) if self._has_tokens else None

    def stop(self) -> None:
        """Stop recording."""
        self._found = None

    @contextmanager
    def trial(self, image: Tensor) -> Iterator[dict[str, Tensor]]:
        """Record as :meth:`recording` does, in a run that shows whether the taps can be used at all.

        Raises:
            UserError: Nothing came by a tap, or no feature (N, C, h, w).
        """
        found = _Versioned()
        self.start(found, image)
        try:
            yield found
        finally:
            self.stop()
        for tap in self.taps:
            if tap not in found:
                raise UserError(f"{self.where}: nothing comes by '{tap}' of {self.kind} when it runs")
            feature = found[tap]
            if not isinstance(feature, Tensor) or feature.ndim != FEATURE_DIMS:
                shape = tuple(feature.shape) if isinstance(feature, Tensor) else type(feature).__name__
                raise UserError(f"{self.where}: '{tap}' of {self.kind} is no feature (N, C, h, w), but {shape}")
            if found.given[tap]._version != found.versions[tap]:
                self._copied.add(tap)


class _Versioned(dict[str, Any]):
    """Copies of features by tap, and the features themselves with what torch counts up at a change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}
        self.versions: dict[str, int] = {}

    def __setitem__(self, tap: str, feature: Any) -> None:
        is_tensor = isinstance(feature, Tensor)
        super().__setitem__(tap, feature.clone() if is_tensor else feature)
        self.given[tap], self.versions[tap] = feature, feature._version if is_tensor else 0
