"""Features from the middle of a network, by the paths of its modules."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from basicsr_clsd.errors import UserError

INPUT = ':input'
FEATURE_DIMS = 4
SUGGESTIONS = 3


class FeatureTaps:
    """Notes what some modules of a network return, or are given, while it runs within :meth:`recording`.

    A tap is a module's path, as in ``named_modules``: ``body.9`` is its output, ``upsample:input`` its first positional
    argument; of a module that runs several times, the last. Between two recordings nothing is held, and the network
    runs as ever. Copies of the network record nothing.

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
            self._found[tap] = arguments[0]

    def _note_output(self, tap: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if self._found is not None:
            self._found[tap] = output

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """Give a dict that fills with the features, by tap, when the network runs; it is all that refers to them."""
        found: dict[str, Tensor] = {}
        self._found = found
        try:
            yield found
        finally:
            self._found = None

    @contextmanager
    def trial(self) -> Iterator[dict[str, Tensor]]:
        """Record as :meth:`recording` does, in a run that shows whether the taps can be used at all.

        Raises:
            UserError: Nothing came by a tap, or no feature (N, C, h, w), or one that the network then changes in place.
        """
        found = _Versioned()
        self._found = found
        try:
            yield found
        finally:
            self._found = None
        for tap in self.taps:
            if tap not in found:
                raise UserError(f"{self.where}: nothing comes by '{tap}' of {self.kind} when it runs")
            feature = found[tap]
            if not isinstance(feature, Tensor) or feature.ndim != FEATURE_DIMS:
                shape = tuple(feature.shape) if isinstance(feature, Tensor) else type(feature).__name__
                raise UserError(f"{self.where}: '{tap}' of {self.kind} is no feature (N, C, h, w), but {shape}")
            if feature._version != found.versions[tap]:
                raise UserError(
                    f"{self.where}: {self.kind} changes '{tap}' in place later on; "
                    f"tap what comes next, as in 'upsample{INPUT}'"
                )


class _Versioned(dict[str, Any]):
    """Features by tap, with what torch counts up when a tensor is changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, int] = {}

    def __setitem__(self, tap: str, feature: Any) -> None:
        super().__setitem__(tap, feature)
        self.versions[tap] = feature._version if isinstance(feature, Tensor) else 0
