"""Run the command line: ``python -m genonaut``."""

from genonaut.cli import main

if __name__ == "__main__":
    main()
