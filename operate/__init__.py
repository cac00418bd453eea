"""For whoever runs a deployed stack: secrets, dead letters, and whether pushes are healthy."""
