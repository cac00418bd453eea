"""Commands for the operator of a deployed stack: write secrets, redrive dead letters, check that pushes are healthy."""

import sys
from pathlib import Path

# The doctor uses the functions' Expo client and their models of the secrets.
sys.path.append(str(Path(__file__).parents[1] / "layers" / "shared"))
