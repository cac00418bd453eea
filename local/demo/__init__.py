"""`./dev demo`, and what `./dev up` proposes to try."""
