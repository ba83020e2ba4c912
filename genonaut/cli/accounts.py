"""Make users and their tokens; runs on the database, so it works before anybody can sign in."""

from datetime import timedelta
from typing import Annotated

import typer
from sqlalchemy import select

from genonaut.cli.environment import settings_for
from genonaut.cli.output import EnvOption, JsonOption, console, print_json, print_table
from genonaut.cli.servers import database_of
from genonaut.db.models import User
from genonaut.domain import accounts, users

users_app = typer.Typer(help="Users.", no_args_is_help=True, add_completion=False)
tokens_app = typer.Typer(help="API tokens.", no_args_is_help=True, add_completion=False)

ACTOR = "cli"


@users_app.command("create")
def create_user(
    username: str,
    role: Annotated[users.Role, typer.Option(help="What the user may do.")] = users.Role.USER,
    email: Annotated[str | None, typer.Option(help="Address.")] = None,
    env: EnvOption = None,
) -> None:
    """Create a user."""
    with database_of(settings_for(env)) as database, database.transaction() as session:
        address = accounts.check_email(email) if email else None
        users.create_user(session, username, role=role, email=address)
        users.audit(session, ACTOR, "user.create", f"user:{username}", {"role": role})
    console.print(f"created {username} ({role})")


@users_app.command("list")
def list_users(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the users."""
    with database_of(settings_for(env)) as database, database.transaction() as session:
        rows = [
            {
                "id": str(user.id),
                "username": user.username,
                "role": user.role,
                "email": user.email,
                "is_active": user.is_active,
                "created_at": user.created_at,
            }
            for user in session.scalars(select(User).order_by(User.username))
        ]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ["USER", "ROLE", "EMAIL", "ACTIVE"],
            [(r["username"], r["role"], r["email"], r["is_active"]) for r in rows],
        )


@tokens_app.command("create")
def create_token(
    user: Annotated[str, typer.Option("--user", help="Whose token.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "command line",
    days: Annotated[
        int | None,
        typer.Option(
            min=1, max=accounts.MAX_TOKEN_DAYS, help="Days it is valid.", show_default="no end"
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the token alone.")] = False,
    env: EnvOption = None,
) -> None:
    """Create a token; it is shown this once."""
    with database_of(settings_for(env)) as database, database.transaction() as session:
        owner = users.find_user(session, user)
        ttl = timedelta(days=days) if days else None
        row, token = accounts.issue_token(session, owner.id, name=name, ttl=ttl)
        details = {"token_id": row.id, "name": row.name}
        users.audit(session, ACTOR, "token.create", f"user:{user}", details)
    if quiet:
        typer.echo(token)
    else:
        console.print(f"token of {user}, shown only now:")
        typer.echo(token)


@tokens_app.command("list")
def list_tokens(
    user: Annotated[str, typer.Option("--user", help="Whose tokens.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a user's tokens; the tokens themselves are not kept."""
    with database_of(settings_for(env)) as database, database.transaction() as session:
        rows = [
            {
                "id": token.id,
                "name": token.name,
                "created_at": token.created_at,
                "expires_at": token.expires_at,
                "last_used_at": token.last_used_at,
                "revoked_at": token.revoked_at,
            }
            for token in accounts.list_tokens(session, users.find_user(session, user).id)
        ]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ["ID", "NAME", "CREATED", "EXPIRES", "LAST USED", "REVOKED"],
            [tuple(r.values()) for r in rows],
        )


@tokens_app.command("revoke")
def revoke_token(token_id: int, env: EnvOption = None) -> None:
    """Make a token invalid at once."""
    with database_of(settings_for(env)) as database, database.transaction() as session:
        ended = accounts.revoke_token(session, token_id)
        if ended is not None:
            owner = users.name_of(session, ended.user_id)
            details = {"token_id": token_id, "name": ended.name}
            users.audit(session, ACTOR, "token.revoke", f"user:{owner}", details)
    console.print(f"revoked token {token_id}")
