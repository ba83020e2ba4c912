"""What can go wrong on this machine."""

from genonaut.core.errors import GenonautError


class LocalError(GenonautError):
    """Something on this machine is in the way; the message is one line that says what."""

    code = "local_error"


class ServerError(LocalError):
    """An embedded server cannot run here."""

    code = "server_error"


class SupervisorError(LocalError):
    """A supervised process cannot run here."""

    code = "supervisor_error"
