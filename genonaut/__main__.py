"""Run the command line: ``genonaut``, or ``python -m genonaut``."""

import signal


def main() -> None:
    """Run a command; Ctrl-C before it has been loaded ends the process without a traceback."""
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from genonaut.cli import main as run

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
