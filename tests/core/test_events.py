"""An event is what a socket receives."""

import json
from dataclasses import FrozenInstanceError

import pytest

from genonaut.core.events import Event


def test_the_payload_is_the_whole_row_and_its_version():
    event = Event("job", 7, 3, ("job:7", "user:u"), {"status": "failed"}, final=True)
    assert json.loads(json.dumps(event.payload())) == {
        "type": "job",
        "id": 7,
        "version": 3,
        "final": True,
        "data": {"status": "failed"},
    }


def test_an_event_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Event("job", 7, 3, (), {}).version = 4
