"""A stand-in for pycuda, for processes that find it by its name: as much of it as the example and the tests use.

It calls the driver through ctypes, as pycuda does, and so the driver's stand-in where that is the one that is found.
"""

from __future__ import annotations
