"""Take mail and forget it: ``python -m benchmarks.harness.mail_sink PORT``."""

import asyncio
import sys
from typing import Any

from aiosmtpd.smtp import SMTP


class Sink:
    """Say yes to everything."""

    async def handle_DATA(self, *_: Any) -> str:  # noqa: N802
        """Take a message."""
        return "250 taken"


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Sink(), hostname="localhost"), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
