"""Take jobs: ``POST /api/v1/generation-jobs`` against a bare INSERT of the same row."""

import json

from benchmarks.harness import load
from benchmarks.harness.load import request
from benchmarks.harness.report import Goal, in_turns, tell
from benchmarks.harness.stage import stage

GOAL = Goal("api_create", "requests/s", 0.5)
USERS = 300
ROUNDS = 5

BODY = json.dumps(
    {
        "prompt": "a lighthouse in a storm, oil painting",
        "negative_prompt": "blurry",
        "width": 768,
        "height": 512,
        "batch_size": 2,
        "sampler_params": {"steps": 24, "cfg": 6.5, "sampler_name": "euler"},
    }
)


def main() -> None:
    """Measure; every request has its login checked and counts against its user's limits."""
    with stage() as on:
        accounts = on.make_accounts(USERS)
        ours = on.serve("genonaut.api.main:app")
        peer = on.serve("benchmarks.harness.peers:store", "--no-access-log")
        posts = [
            request("POST", "/api/v1/generation-jobs", token=account.token, body=BODY)
            for account in accounts
        ]
        inserts = [request("POST", f"/jobs/{a.user_id}", body=BODY) for a in accounts]

        load.rate(ours, posts, 202, 1)
        load.rate(peer, inserts, 202, 1)
        tell(
            GOAL,
            in_turns(
                ROUNDS,
                lambda: load.rate(ours, posts, 202),
                lambda: load.rate(peer, inserts, 202),
            ),
        )


if __name__ == "__main__":
    main()
