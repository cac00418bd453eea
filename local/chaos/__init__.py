"""`./dev chaos`: faults in real traffic, and invariants that its history must keep."""
