"""The commands of `python -m daj_lightning`: functions whose arguments are options, and their docstrings the help.

What a command needs is imported when it is called, so that `--help` and a mistake cost nothing.
"""
