"""Runs the copier from its directory, without the rest of migrator."""
import os
import sys

# At the end, so that nothing beside this directory takes the place of a module of the standard library.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from copier.program import main  # noqa: E402 - found only now

sys.exit(main())
