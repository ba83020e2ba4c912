"""A port that cannot be used is told with the reason."""

import socket

import pytest

from genonaut.cli.processes import refuse_unusable_port
from genonaut.cli.servers import ServersError
from tests.support.servers import free_port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_free_port_is_fine_and_one_that_is_taken_is_named(host):
    refuse_unusable_port(host, free_port(), "API_PORT")
    with socket.socket() as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServersError) as refused:
            refuse_unusable_port(host, port, "API_PORT")
    said = f"port {port} is taken by another program; stop it, or set API_PORT"
    assert str(refused.value) == said


def test_an_address_of_another_machine_is_not_called_taken():
    with pytest.raises(ServersError) as refused:
        refuse_unusable_port("192.0.2.1", free_port(), "API_PORT")
    assert "taken" not in str(refused.value)
    assert "Cannot assign requested address" in str(refused.value)
