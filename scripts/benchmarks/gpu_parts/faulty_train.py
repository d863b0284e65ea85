"""train.py, in which rank 1 fails in the third backward, as one whose memory has run out."""

import os

from torch import Tensor

from basicsr_clsd.models.stepper import Stepper
from basicsr_clsd.train import main

FAULT_AT = 3


def spoil() -> None:
    """Have the third backward raise."""
    backward, calls = Stepper.backward, iter(range(1, 10**9))

    def failing(self: Stepper, loss: Tensor) -> None:
        if next(calls) == FAULT_AT:
            loss.register_hook(lambda gradient: 1 / 0)
        backward(self, loss)

    Stepper.backward = failing


if __name__ == '__main__':
    if os.environ.get('RANK') == '1':
        spoil()
    main()
