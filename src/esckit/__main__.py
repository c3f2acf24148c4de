"""``python -m esckit``, which launchers of several processes need."""

from esckit.cli import main

if __name__ == "__main__":
    main()
