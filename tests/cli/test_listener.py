"""The socket that `coffer serve` and `coffer demo` listen on."""

import socket
from contextlib import closing

from cli.processes import listening


def test_no_answer_waits_for_a_delayed_acknowledgement() -> None:
    with (
        closing(listening("127.0.0.1", 0, "COFFER_PORT=")) as listener,
        socket.create_connection(listener.getsockname()),
        closing(listener.accept()[0]) as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
