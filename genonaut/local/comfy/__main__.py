"""Start the simulator: ``python -m genonaut.local.comfy --port 8188``."""

import argparse
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
from pydantic import ValidationError

from genonaut.local.comfy.connections import TrackedProtocol
from genonaut.local.comfy.faults import Faults
from genonaut.local.comfy.server import Options, Simulator

log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Stop as ComfyUI does: at once, nothing is drained, sockets drop without a close frame."""

    def __init__(self, config: uvicorn.Config, simulator: Simulator) -> None:
        super().__init__(config)
        self.simulator = simulator

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Wipe the temp folder and leave."""
        self.simulator.folders.wipe_temp()
        os._exit(0 if sig == signal.SIGTERM else 128 + sig)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m genonaut.local.comfy", description="Stand in for ComfyUI 0.3.64."
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8188, help="port to listen on; 0: any (default: %(default)s)")
    add("--dir", type=Path, help="holds output, input and temp (default: a new temporary folder)")
    add("--step-delay", type=float, default=0.04, help="seconds per step (default: %(default)s)")
    add("--load-delay", type=float, default=0.4, help="seconds per model (default: %(default)s)")
    add("--allow-faults", action="store_true", help="open /simulator/faults and /simulator/log")
    add("--faults", default="{}", help="faults from the start, as the JSON of /simulator/faults")
    add("--synthetic-nodes", action="store_true", help="add the transcripts' test nodes")
    add("--verbose", action="store_true", help="log every request")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run until a signal comes; give the exit status."""
    chosen = _parse(arguments)
    try:
        faults = Faults.parse(chosen.faults)
    except ValidationError as error:
        return _fail(f"--faults: {error.errors()[0]['msg']}")
    listener = socket.socket(socket.AF_INET6 if ":" in chosen.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((chosen.host, chosen.port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return _fail(f"cannot listen on {chosen.host}:{chosen.port}: {reason}")
    try:
        directory = chosen.dir or Path(tempfile.mkdtemp(prefix="genonaut-comfy-"))
        simulator = Simulator(
            Options(
                directory=directory,
                argv=tuple(arguments),
                step_delay_s=chosen.step_delay,
                load_delay_s=chosen.load_delay,
                faults=faults,
                allow_faults=chosen.allow_faults,
                synthetic_nodes=chosen.synthetic_nodes,
            )
        )
    except OSError as error:
        return _fail(f"cannot use {chosen.dir}: {error.strerror}")
    config = uvicorn.Config(
        simulator.app(),
        http=TrackedProtocol,
        ws="websockets-sansio",
        ws_ping_interval=None,
        lifespan="on",
        server_header=False,
        log_level="info" if chosen.verbose else "warning",
    )
    host, port = listener.getsockname()[:2]
    log.info("simulator of ComfyUI listens", url=f"http://{host}:{port}", dir=str(directory))
    Server(config, simulator).run(sockets=[listener])
    return 0


def _fail(reason: str) -> int:
    sys.stderr.write(f"comfy simulator: {reason}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
