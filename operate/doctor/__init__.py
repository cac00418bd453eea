"""Are pushes healthy? An examination of a deployed stack or of the local cloud."""

from operate.doctor.command import doctor

__all__ = ["doctor"]
