"""What a user is told of a mistake."""

from collections.abc import Callable
from typing import Any

import pytest

from basicsr_clsd.errors import UserError


def told(call: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """The one line of the error in which a call must end."""
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    (line,) = str(caught.value).splitlines()
    return line
