from __future__ import annotations

from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import small_bundle as small_bundle
