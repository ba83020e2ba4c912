"""Send 10,000 notifications to 1,000 users by mail, against a bare loop over the same sink.

The loop writes mails of the same parts and hands them in over one connection; it keeps no books.
Beside the result: what the worker's processes grow by, and what recording a fact costs.
"""

import os
import smtplib
import time
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path

from sqlalchemy import func, insert, select, update

from benchmarks.harness.report import Goal, in_turns, note, tell
from benchmarks.harness.stage import Stage, stage, wait_for_port
from genonaut.db.models import NotificationAddress, NotificationDelivery, User
from genonaut.domain import notifications
from tests.support.servers import free_port

GOAL = Goal("notify", "mails/s", 0.7)
USERS = 1_000
EACH = 10
TOTAL = USERS * EACH
ROUNDS = 3
SLOTS = 2
SENDER = "genonaut@example.org"
PATIENCE_S = 600.0


def main() -> None:
    """Fill the outbox once, and have it sent again in every round."""
    port = free_port()
    settings = {
        "smtp_host": "127.0.0.1",
        "smtp_port": port,
        "smtp_security": "none",
        "mail_from": SENDER,
        "reconcile_interval_s": 0.5,
        "receiver_per_minute": 1_000_000,
    }
    with stage(**settings) as on:
        wait_for_port(port, on.run("-m", "benchmarks.harness.mail_sink", str(port)))
        recipients = fill(on)
        worker = on.run(
            *("-m", "celery", "-A", "genonaut.worker.queue_app", "worker", "-Q", "notifications"),
            *("-c", str(SLOTS), "--without-mingle", "--without-gossip", "-l", "WARNING"),
        )
        sent(on)  # the processes are warm then
        before = resident_mb(worker.pid)
        pairs = in_turns(ROUNDS, lambda: sent(on), lambda: bare(port, recipients))
        after = resident_mb(worker.pid)
        note(
            f"worker and its {SLOTS} processes: {before:.0f} MB, {after:.0f} MB after "
            f"{TOTAL * ROUNDS:,} more mails"
        )
    tell(GOAL, pairs)


def fill(on: Stage) -> list[str]:
    """Record the facts as jobs would, a transaction each; give the recipients."""
    recipients = [f"user{number}@example.org" for number in range(USERS)]
    with on.database.transaction() as session:
        ids = session.scalars(
            insert(User).returning(User.id), [{"username": f"user{n}"} for n in range(USERS)]
        ).all()
        for user_id, address in zip(ids, recipients, strict=True):
            session.add(
                NotificationAddress(
                    user_id=user_id,
                    channel="email",
                    address=address,
                    host="email",
                    is_relayed=True,
                    takes_digest=True,
                    verified_at=func.now(),
                )
            )
    began = time.perf_counter()
    for number in range(EACH):
        for user_id in ids:
            with on.database.transaction() as session:
                notifications.notify(
                    session,
                    user_id,
                    "job_completed",
                    dedupe_key=f"job:{number}",
                    title="Your picture is ready",
                    body="a lighthouse in a storm, oil painting",
                )
    took_s = time.perf_counter() - began
    note(f"recording a fact and planning its mail: {took_s / TOTAL * 1000:.2f} ms, commit included")
    with on.database.transaction() as session:
        session.execute(update(NotificationDelivery).values(status="cancelled"))
    return recipients


def sent(on: Stage) -> float:
    """Have all mails sent once more; give how many a second, from the first claim to the last."""
    model = NotificationDelivery
    with on.database.transaction() as session:
        session.execute(
            update(model).values(
                status="pending",
                attempt=0,
                available_at=func.now(),
                dispatched_at=None,
                started_at=None,
                completed_at=None,
                version=model.version + 1,
            )
        )
    with on.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
            "VACUUM ANALYZE notification_deliveries"  # as autovacuum would have
        )
    ends_at = time.monotonic() + PATIENCE_S
    ended = select(func.count()).where(model.status == "completed")
    while time.monotonic() < ends_at:
        with on.database.looking() as session:
            if session.scalars(ended).one() == TOTAL:
                break
        time.sleep(0.5)
    else:
        raise RuntimeError("the mails are not sent")
    span = func.extract("epoch", func.max(model.completed_at) - func.min(model.started_at))
    with on.database.looking() as session:
        return TOTAL / float(session.scalars(select(span)).one())


def bare(port: int, recipients: list[str]) -> float:
    """Write and hand in as many mails in a loop; give how many a second."""
    began = time.perf_counter()
    today = formatdate()
    with smtplib.SMTP("127.0.0.1", port, "localhost") as relay:
        for number in range(EACH):
            for recipient in recipients:
                message = EmailMessage(policy=SMTP)
                message["From"] = SENDER
                message["To"] = recipient
                message["Subject"] = "Your picture is ready"
                message["Date"] = today
                message["Message-ID"] = f"<{number}.{recipient}>"
                message["Auto-Submitted"] = "auto-generated"
                message["List-Unsubscribe"] = f"<https://example.org/unsubscribe?{recipient}>"
                message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
                message.set_content("a lighthouse in a storm, oil painting\n")
                message.add_alternative(
                    "<p>a lighthouse in a storm, oil painting</p>\n", subtype="html"
                )
                relay.sendmail(SENDER, [recipient], message.as_bytes())
    return TOTAL / (time.perf_counter() - began)


def resident_mb(pid: int) -> float:
    """Give what a process and its children hold in memory, MB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = sum(
        int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (str(pid), *children)
    )
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
