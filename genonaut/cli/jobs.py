"""Make pictures and look after them from a terminal, through the API."""

import json
import math
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.markup import escape

from genonaut.cli import progress, schema
from genonaut.cli.environment import settings_for
from genonaut.cli.output import (
    EnvOption,
    JsonOption,
    UrlOption,
    console,
    fail,
    local_time,
    print_fields,
    print_json,
    print_table,
)
from genonaut.cli.remote import Api

app = typer.Typer(help="Generation jobs.", no_args_is_help=True, add_completion=False)


@app.command("submit")
def submit(
    prompt: str,
    negative: Annotated[str | None, typer.Option(help="What not to draw.")] = None,
    model: Annotated[str | None, typer.Option(help="Checkpoint.")] = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="LoRA, as NAME or NAME:STRENGTH; repeatable.")
    ] = None,
    width: Annotated[int, typer.Option(help="Pixels, a multiple of 8.")] = 512,
    height: Annotated[int, typer.Option(help="Pixels, a multiple of 8.")] = 512,
    batch: Annotated[int, typer.Option(help="Pictures.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Same seed, same picture.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    workflow: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A graph in API format.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Only for you.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until it is done.")] = False,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a picture."""
    body: dict[str, Any] = {
        "prompt": prompt,
        "width": width,
        "height": height,
        "batch_size": batch,
        "is_private": private,
    }
    sampler = {k: v for k, v in {"seed": seed, "steps": steps}.items() if v is not None}
    optional = {
        "negative_prompt": negative,
        "checkpoint_model": model,
        "lora_models": [_lora(text) for text in lora or []],
        "sampler_params": sampler,
        "workflow": _graph(workflow) if workflow else None,
    }
    body.update({k: v for k, v in optional.items() if v})
    settings = settings_for(env)
    with Api.of(settings, url) as api:
        job = api.call(
            "POST", "/generation-jobs", json=body, headers={"Idempotency-Key": str(uuid4())}
        )
        if wait:
            job = progress.wait(api, job, env=settings.app_env, with_bar=not as_json)
    if as_json:
        print_json(job)
    elif wait and job["status"] == "completed":
        console.print(
            f"job {job['id']}: {url or settings.base_url}/api/v1/content/{job['content_id']}"
        )
    elif not wait:
        console.print(f"job {job['id']} is {job['status']}")
    if wait and job["status"] != "completed":
        fail(progress.ending(job))


def _lora(text: str) -> dict[str, Any]:
    name, _, strength = text.rpartition(":")
    if not name:
        return {"name": text}
    try:
        number = float(strength)
    except ValueError:
        return {"name": text}
    if not math.isfinite(number):
        fail(f"--lora {text}: the strength must be a finite number", status=2)
    return {"name": name, "strength_model": number, "strength_clip": number}


def _graph(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=schema.refuse)
    except ValueError as error:
        fail(f"{path} is not JSON: {error}", status=2)


@app.command("list")
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows.")] = 20,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List your jobs, newest first."""
    params = {"status": status} if status else {}
    with Api.of(settings_for(env), url) as api:
        rows = list(api.pages("/generation-jobs", params, limit=limit))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "STATUS", "CREATED", "PROMPT"],
        [
            (r["id"], r["status"], local_time(r["created_at"]), " ".join(r["prompt"].split())[:60])
            for r in rows
        ],
    )


@app.command("show")
def show(
    job_id: int, url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Show a job and its story."""
    with Api.of(settings_for(env), url) as api:
        job = api.call("GET", f"/generation-jobs/{job_id}")
        story = api.call("GET", f"/generation-jobs/{job_id}/timeline")["items"]
    if as_json:
        print_json({**job, "timeline": story})
        return
    print_fields(
        {
            "job": job["id"],
            "status": job["status"],
            "prompt": job["prompt"],
            "model": job["checkpoint_model"],
            "size": f"{job['width']}x{job['height']}",
            "pictures": job["batch_size"],
            "seed": job["sampler_params"].get("seed"),
            "attempt": f"{job['attempt']} of {job['max_attempts']}",
            "place in queue": job.get("queue_position"),
            "content": job["content_id"],
            "error": (job["error"] or {}).get("message"),
        }
    )
    for entry in story:
        console.print(f"  {local_time(entry['at'])}  {escape(entry['message'])}", soft_wrap=True)


@app.command("cancel")
def cancel(
    job_id: int, url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Cancel a job."""
    _act(job_id, "cancel", url, env, as_json=as_json)


@app.command("retry")
def retry(
    job_id: int, url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Repeat a failed or cancelled job as a new one."""
    _act(job_id, "retry", url, env, as_json=as_json)


@app.command("stale")
def stale(
    limit: Annotated[int, typer.Option(min=1, max=500, help="Rows of each rule, and acts.")] = 20,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which jobs and runs are stuck and why, and what the workers mended last."""
    with Api.of(settings_for(env), url) as api:
        report = api.call("GET", "/admin/stale", params={"limit": limit})
    if as_json:
        print_json(report)
        return
    if report["items"]:
        print_table(
            ["WHAT", "ID", "FOR", "RULE", "BECOMES", "WHY"],
            [
                (r["kind"], r["id"], f"{r['stale_s']:.0f}s", r["rule"], r["becomes"], r["why"])
                for r in report["items"]
            ],
        )
        hidden = sum(report["counts"].values()) - len(report["items"])
        if hidden > 0:
            console.print(f"… and {hidden} more; see --limit")
    else:
        console.print("nothing is stuck")
    if report["recent"]:
        console.print("\n[bold]mended last[/bold]")
        for act in report["recent"]:
            console.print(f"  {escape(_mended(act))}", soft_wrap=True)


def _mended(act: dict[str, Any]) -> str:
    which = f"{act['kind']} {act['id']}" if act["id"] else f"{act['count']} of {act['kind']}"
    return f"{local_time(act['at'])}  {which} → {act['became']}: {act['why']}"


def _act(job_id: int, what: str, url: str | None, env: str | None, *, as_json: bool) -> None:
    with Api.of(settings_for(env), url) as api:
        job = api.call("POST", f"/generation-jobs/{job_id}/{what}")
    if as_json:
        print_json(job)
        return
    state = (
        "is being cancelled"
        if what == "cancel" and job["status"] == "running"
        else (f"is {job['status']}")
    )
    console.print(f"job {job['id']} {state}")
