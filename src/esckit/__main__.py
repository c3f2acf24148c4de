"""``python -m esckit``: the command line, for launchers that start modules."""

from esckit.cli import main

if __name__ == "__main__":
    main()
