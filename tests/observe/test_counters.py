"""What INFO counts, over connections that come, go and stay."""

from __future__ import annotations

import kvclient
import kvserver


def total(client: kvclient.Client) -> int:
    return int(client.info("stats")["total_commands_processed"])


def test_a_reset_also_forgets_what_open_connections_have_counted(server: kvserver.Server) -> None:
    with kvclient.connect(server.url, max_connections=1) as client:
        for _ in range(50):
            client.get("k")
        assert total(client) >= 50
        client.execute("CONFIG", "RESETSTAT")
        assert total(client) <= 2
        with kvclient.connect(server.url) as other:
            for _ in range(10):
                other.get("k")
        assert 10 <= total(client) < 20
        client.execute("CONFIG", "RESETSTAT")
        assert total(client) <= 2
