"""`./dev chat`: a chat in the terminal, for trying the system by hand."""
