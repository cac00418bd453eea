"""The whole system on one machine: what `./dev up`, `./dev demo` and the system tests run."""
