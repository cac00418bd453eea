"""`./dev chaos`: traffic, an attacker and faults in a local cloud, and the invariants that must hold nevertheless."""
