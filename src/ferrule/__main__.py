"""``python -m ferrule`` is the command ``ferrule``."""

from ferrule.cli import main

if __name__ == "__main__":
    main()
