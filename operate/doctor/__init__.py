"""Are pushes healthy? An examination of a deployed stack or of the local cloud."""

from operate.doctor.command import add_arguments, doctor

__all__ = ["add_arguments", "doctor"]
