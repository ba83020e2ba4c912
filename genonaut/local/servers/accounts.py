"""Choose the account an embedded server runs as: PostgreSQL refuses to be root."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genonaut.local.errors import ServerError

_NAMESPACE = ("--user", "--map-user=65534", "--map-group=65534")
_PROBE = 'test -w "$1" && test -x "$1" && exec "$2" --version'


@dataclass(frozen=True)
class Account:
    """Say how to start a server: as ourselves, as another user, or in a user namespace."""

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    def popen_arguments(self) -> dict[str, Any]:
        """Give the keyword arguments that make ``subprocess`` switch to the account."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take_over(self, folder: Path) -> bool:
        """Make the account the folder's owner, if that is allowed."""
        if self.uid is None or self.gid is None:
            owner = (os.geteuid(), os.getegid())
        else:
            owner = (self.uid, self.gid)
        try:
            os.chown(folder, *owner)
        except OSError:
            return False
        return True

    def reaches(self, folder: Path, program: Path) -> bool:
        """Whether the account can write to the folder and run the program."""
        try:
            probe = subprocess.run(
                [*self.prefix, "/bin/sh", "-c", _PROBE, "sh", folder, program],
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                **self.popen_arguments(),
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            return False
        return probe.returncode == 0


def choose(home: Path, program: Path, *, title: str, setting: str) -> Account:
    """Find an account that can run ``program`` on data in ``home``, and give it the folder.

    As root: the owner of the data if there are any; else ``nobody``; else root inside a user
    namespace, where it is called nobody and still reaches what only root may read.

    Raises: ServerError: there is none.
    """
    if os.geteuid() != 0:
        if os.access(home, os.W_OK | os.X_OK):
            return Account()
        raise ServerError(
            f"{home} belongs to another account, so {title} cannot keep its data there; "
            f"remove it, or set VAR_DIR or {setting}"
        )
    for account in _candidates(home):
        if account.take_over(home) and account.reaches(home, program):
            return account
    raise ServerError(
        f"{title} cannot run as root, and no other account can use {home}; "
        f"run as another user, or set {setting} to a server of yours"
    )


def _candidates(home: Path) -> list[Account]:
    data = home / "data"
    owner = data.stat().st_uid if data.exists() else None
    found = []
    if owner:
        found.append(Account(owner, data.stat().st_gid))
    if owner is None:
        try:
            nobody = pwd.getpwnam("nobody")
            found.append(Account(nobody.pw_uid, nobody.pw_gid))
        except KeyError:
            pass
    if not owner and (unshare := shutil.which("unshare")):
        found.append(Account(prefix=(unshare, *_NAMESPACE)))
    return found
