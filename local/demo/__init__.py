"""`./dev demo`: a scenario with its checks. `./dev up`: the commands to try first."""
