"""./dev doctor: checks whether a deployed stack or the local cloud sends pushes, and names a remedy for each fault."""

from operate.doctor.command import doctor

__all__ = ["doctor"]
