"""Hear, and say how one wants to hear, from a terminal; operators see how messages go."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape

from genonaut.cli import schema
from genonaut.cli.environment import settings_for
from genonaut.cli.output import (
    EnvOption,
    JsonOption,
    UrlOption,
    console,
    local_time,
    print_fields,
    print_json,
    print_table,
)
from genonaut.cli.remote import Api

app = typer.Typer(help="What you are told, and how.", no_args_is_help=True, add_completion=False)

AllOption = Annotated[bool, typer.Option("--all", help="Every unread one.")]
IdArgument = Annotated[int | None, typer.Argument(help="As `list` shows it.")]
ChannelArgument = Annotated[str, typer.Argument(help="email or webhook.")]


@app.command("list")
def list_notifications(
    unread: Annotated[bool, typer.Option("--unread", help="Unread ones only.")] = False,
    kind: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows.")] = 20,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List your notifications, newest first."""
    params = {"unread": unread, **({"kind": kind} if kind else {})}
    with Api.of(settings_for(env), url) as api:
        rows = list(api.pages("/notifications", params, limit=limit))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "", "WHEN", "KIND", "TITLE"],
        [
            (
                r["id"],
                "" if r["read_at"] else "•",
                local_time(r["created_at"]),
                r["kind"],
                r["title"],
            )
            for r in rows
        ],
    )


@app.command("read")
def read(
    notification_id: IdArgument = None,
    everything: AllOption = False,
    url: UrlOption = None,
    env: EnvOption = None,
) -> None:
    """Mark one read, or all."""
    with Api.of(settings_for(env), url) as api:
        if everything:
            count = api.call("POST", "/notifications/read-all")["count"]
            console.print(f"{count} marked read")
            return
        _mark(api, notification_id, read=True)


@app.command("unread")
def unread(notification_id: int, url: UrlOption = None, env: EnvOption = None) -> None:
    """Mark one unread."""
    with Api.of(settings_for(env), url) as api:
        _mark(api, notification_id, read=False)


def _mark(api: Api, notification_id: int | None, *, read: bool) -> None:
    if notification_id is None:
        raise typer.BadParameter("name one, or say --all")
    api.call("PUT", f"/notifications/{notification_id}", json={"read": read})
    console.print(f"{notification_id} marked {'read' if read else 'unread'}")


@app.command("delete")
def delete(notification_id: int, url: UrlOption = None, env: EnvOption = None) -> None:
    """Delete one."""
    with Api.of(settings_for(env), url) as api:
        api.call("DELETE", f"/notifications/{notification_id}")
    console.print(f"{notification_id} deleted")


@app.command("preferences")
def show_preferences(
    wanted: Annotated[
        list[str] | None,
        typer.Argument(help="kind.channel=on|off, or name=value: timezone=Europe/Berlin"),
    ] = None,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how you want to hear; with name=value, change it."""
    with Api.of(settings_for(env), url) as api:
        found = api.call("GET", "/notification-preferences")
        if wanted:
            body = {name: value for name, value in found.items() if name != "channels"}
            for one in wanted:
                _set(body, one)
            found = api.call("PUT", "/notification-preferences", json=body)
    if as_json:
        print_json(found)
        return
    channels = [channel["name"] for channel in found["channels"]]
    print_table(
        ["KIND", *(name.upper() for name in channels)],
        [
            (kind, *("on" if chosen[name] else "off" for name in channels))
            for kind, chosen in found["kinds"].items()
        ],
    )
    console.print()
    print_fields({k: v for k, v in found.items() if k not in {"kinds", "channels"}})


def _set(body: dict[str, Any], text: str) -> None:
    name, is_given, value = text.partition("=")
    if not is_given:
        raise typer.BadParameter(f"{text!r} is no name=value")
    kind, is_kind, channel = name.partition(".")
    if is_kind:
        if value not in {"on", "off"}:
            raise typer.BadParameter(f"{name} is on or off")
        body["kinds"].setdefault(kind, {})[channel] = value == "on"
        return
    try:
        body[name] = json.loads(value, parse_constant=schema.refuse)
    except ValueError:
        body[name] = value or None


@app.command("channels")
def list_channels(
    url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Show where you are reached."""
    with Api.of(settings_for(env), url) as api:
        rows = api.call("GET", "/notification-channels")["items"]
    if as_json:
        print_json(rows)
        return
    print_table(["CHANNEL", "STATE", "ADDRESS", ""], [_channel(row) for row in rows])


def _channel(row: dict[str, Any]) -> tuple[object, ...]:
    address = row["address"]
    if not row["configured"]:
        return row["name"], "not set up", "", row["reason"]
    if address is None:
        return row["name"], "no address" if row["takes_address"] else "active", "", ""
    return row["name"], address["state"], address["address"], address["disabled_reason"]


@app.command("set")
def set_address(
    channel: ChannelArgument, address: str, url: UrlOption = None, env: EnvOption = None
) -> None:
    """Be reached at an address, once it is verified; a webhook's secret is shown this once."""
    with Api.of(settings_for(env), url) as api:
        found = api.call("PUT", f"/notification-channels/{channel}", json={"address": address})
    console.print(f"{channel}: {escape(found['address']['address'])} ({found['address']['state']})")
    _show_secret(found)


@app.command("unset")
def unset(channel: ChannelArgument, url: UrlOption = None, env: EnvOption = None) -> None:
    """Be reached over a channel no more."""
    with Api.of(settings_for(env), url) as api:
        api.call("DELETE", f"/notification-channels/{channel}")
    console.print(f"{channel}: no address")


@app.command("verify")
def verify(channel: ChannelArgument, url: UrlOption = None, env: EnvOption = None) -> None:
    """Have the check of your address sent again."""
    _ask(channel, "verify", url, env)


@app.command("test")
def send_test(channel: ChannelArgument, url: UrlOption = None, env: EnvOption = None) -> None:
    """Have a test sent to your address."""
    _ask(channel, "test", url, env)


def _ask(channel: str, what: str, url: str | None, env: str | None) -> None:
    with Api.of(settings_for(env), url) as api:
        sent = api.call("POST", f"/notification-channels/{channel}/{what}")
    console.print(f"{sent['purpose']} {sent['message_id']} is {sent['status']}")


@app.command("rotate-secret")
def rotate_secret(url: UrlOption = None, env: EnvOption = None) -> None:
    """Have webhooks signed with a new secret; the old one signs too for another day."""
    with Api.of(settings_for(env), url) as api:
        _show_secret(api.call("POST", "/notification-channels/webhook/rotate-secret"))


def _show_secret(found: dict[str, Any]) -> None:
    if found.get("secret"):
        console.print(f"secret: {found['secret']}", soft_wrap=True)


@app.command("deliveries")
def list_deliveries(
    notification_id: IdArgument = None,
    status: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only over this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows.")] = 20,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a notification of yours was sent; auditors: everyone's messages, newest first."""
    given = {"status": status, "channel": channel}
    params = {name: value for name, value in given.items() if value}
    with Api.of(settings_for(env), url) as api:
        if notification_id is not None:
            rows = api.call("GET", f"/notifications/{notification_id}/deliveries")["items"]
        else:
            rows = list(api.pages("/admin/deliveries", params, limit=limit))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "STATUS", "TRIES", "CHANNEL", "PURPOSE", "CREATED", "WHY"],
        [
            (
                r["id"],
                r["status"],
                f"{r['attempt']}/{r['max_attempts']}",
                r["channel"],
                r["purpose"],
                local_time(r["created_at"]),
                (r["error"] or {}).get("message"),
            )
            for r in rows
        ],
    )


@app.command("redeliver")
def redeliver(delivery_id: int, url: UrlOption = None, env: EnvOption = None) -> None:
    """Send a message that has ended once more; for operators."""
    with Api.of(settings_for(env), url) as api:
        made = api.call("POST", f"/admin/deliveries/{delivery_id}/redeliver")
    console.print(f"delivery {made['id']} is {made['status']}")


@app.command("health")
def health(url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Show how each channel does; for auditors."""
    with Api.of(settings_for(env), url) as api:
        found = api.call("GET", "/admin/delivery-health")["channels"]
    if as_json:
        print_json(found)
        return
    names = ["pending", "due", "running", "retrying", "oldest_due_s", "sent", "failed"]
    print_table(
        ["CHANNEL", *(name.upper() for name in names), "LAST ERROR"],
        [
            (
                channel,
                *(told[name] for name in names),
                told["reason"] or (told["last_error"] or {}).get("message"),
            )
            for channel, told in found.items()
        ],
    )


@app.command("announce")
def announce(
    title: str,
    body: Annotated[str, typer.Option(help="What there is to say.")] = "",
    user: Annotated[str | None, typer.Option(help="Only to this one.")] = None,
    url: UrlOption = None,
    env: EnvOption = None,
) -> None:
    """Tell everyone something; for operators."""
    told = {"title": title, "body": body, **({"username": user} if user else {})}
    with Api.of(settings_for(env), url) as api:
        count = api.call("POST", "/admin/notifications", json=told)["count"]
    console.print(f"{count} told")
