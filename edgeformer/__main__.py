"""``python -m edgeformer`` is the ``edgeformer`` command."""

from edgeformer.cli import main

main()
