"""The document describes what is answered, tried with generated requests."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from genonaut.domain.users import Role


@pytest.fixture
def described(api):
    """The description, as the running API gives it."""
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


def test_every_operation_is_named_tagged_and_tells_its_statuses(anyone):
    document = anyone.get("/openapi.json").json()
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations)
    for operation in operations:
        assert operation["tags"]
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            problem = int(status) >= 400 and operation["tags"] != ["health"]
            assert not problem or "application/problem+json" in answer["content"]
    text = anyone.get("/openapi.json").text
    assert "HTTPValidationError" not in text
    described = ("JobRequest", "LoginRequest", "Content", "Notification", "SocketTicket")
    administration = ("RunRequest", "Task", "Run", "RunDetails", "AuditEntry", "Stats")
    plans = ("ScheduleRequest", "TermsRequest", "TimingRequest", "PauseRequest", "Schedule")
    people = ("UserRequest", "UserChange", "User", "TokenRequest", "NewToken", "Token")
    for name in (*described, *administration, *plans, *people):
        assert document["components"]["schemas"][name]["example"]


GENERATED = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)


def test_what_is_answered_is_described(described, make_account):
    olga = make_account("olga", Role.ADMIN)
    olga.client.post("/api/v1/admin/tasks/content.refresh_stats/runs", json={})
    nightly = {"name": "a", "task": "content.refresh_stats", "cron": "@daily"}
    assert olga.client.post("/api/v1/admin/schedules", json=nightly).status_code == 201
    headers = {"Authorization": f"Bearer {olga.token}"}
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @GENERATED
        @given(case=operation.as_strategy())
        def conforms(case):
            case.call_and_validate(headers=headers, checks=CHECKS, timeout=15)

        conforms()
