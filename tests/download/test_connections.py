"""lib.download.connections: what urllib3 does not do by itself."""

from __future__ import annotations

import socket
import threading

from tests.helpers.misbehaving_server import JPEG
from workflow_scripts.lib.download import http_client

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG


def serve(listening: socket.socket, asked: list[int]) -> None:
    """Answer the first request of every connection, and hang up at the second."""
    for number in range(2):
        connection, _ = listening.accept()
        with connection:
            for answer in (ANSWER, b""):
                if connection.recv(65536):
                    asked.append(number)
                    connection.sendall(answer)


def test_a_connection_that_the_server_closed_meanwhile_costs_no_retry(tmp_path):
    asked: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening, asked), daemon=True).start()
        policy = http_client.Policy(1, 1000, 5, 0, 0, 30, 60, 3)
        fetcher = http_client.Fetcher(tmp_path, policy, 10**9)
        for name in ("a", "b"):
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/{name}.jpg"
            fetcher.fetch(http_client.Item(f"{name}.jpg", url, "jpg", 10**6))
    assert (tmp_path / "b.jpg").read_bytes() == JPEG
    assert asked == [0, 0, 1]
