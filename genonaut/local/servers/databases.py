"""Make an environment's database on a server that runs."""

from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg2
from psycopg2 import errors, sql

from genonaut.local.errors import ServerError


def ensure_database(url: str, *, timeout_s: int = 10) -> bool:
    """Create the database ``url`` names unless it exists; tell whether it was made.

    Raises: ServerError: the server refuses; one line that says why, without the password.
    """
    parts = urlsplit(url)
    parts = parts._replace(scheme=parts.scheme.partition("+")[0])
    name = unquote(parts.path.lstrip("/"))
    try:
        return _create(urlunsplit(parts._replace(path="/postgres")), name, timeout_s)
    except psycopg2.OperationalError as error:
        # An account may be kept out of the maintenance database and still have its own.
        try:
            psycopg2.connect(urlunsplit(parts), connect_timeout=timeout_s).close()
        except psycopg2.OperationalError:
            raise ServerError(
                f"cannot reach PostgreSQL at {parts.hostname}:{parts.port or 5432}: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        return False
    except psycopg2.Error as error:
        raise ServerError(
            f"cannot create the database {name}: {str(error).strip().splitlines()[0]}"
        ) from error


def _create(maintenance_url: str, name: str, timeout_s: int) -> bool:
    connection = psycopg2.connect(maintenance_url, connect_timeout=timeout_s)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone():
                return False
            # Two environments may create it at once; the template may be busy for a moment.
            try:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except (errors.DuplicateDatabase, errors.UniqueViolation):
                return False
            return True
    finally:
        connection.close()
