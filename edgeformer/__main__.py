"""``python -m edgeformer`` is the ``edgeformer`` command."""

from __future__ import annotations

from typing import NoReturn

from edgeformer.supervision.supervisor import supervise

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line in a process of its own, watched by this one, and exit; the ``edgeformer`` script."""
    supervise()
    # Click alone takes longer to import than all of the above.
    from edgeformer.cli import main as run

    run()


if __name__ == "__main__":
    main()
