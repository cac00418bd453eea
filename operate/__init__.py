"""For whoever runs a deployed stack: secrets, dead letters, and whether pushes are healthy."""

import sys
from pathlib import Path

# Expo's client and the models of the secrets are those of the functions.
sys.path.append(str(Path(__file__).parents[1] / "layers" / "shared"))
