"""The command ``ferrule``: what an operator and a plugin's author type.

Results go to stdout; progress, messages and errors to stderr. Exit status 0: done; 1: failed; 2: wrong usage; 3: done,
and some records are in the dead-letter file.

One module a group of commands, which imports what it works with inside its commands: ``ferrule --version`` and
``ferrule sdk`` stand in shell scripts and Makefiles, and must not wait for the rest.
"""

from ferrule.cli.app import main

__all__ = ["main"]
