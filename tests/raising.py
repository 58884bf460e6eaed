"""How a test says which error it expects: by its code and the values that the message has to name, not its wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgeformer.errors import EdgeformerError

__all__ = ["raises"]


@contextmanager
def raises(code: str, *values: object) -> Iterator[pytest.ExceptionInfo[EdgeformerError]]:
    """Expect an error of edgeformer with this code, whose message names every one of ``values``."""
    with pytest.raises(EdgeformerError) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code}: {caught.value}"
    missing = [str(value) for value in values if str(value) not in str(caught.value)]
    assert not missing, f"{caught.value} does not name {missing}"
