"""The MQTT link in a process that spares TLS: a read that would block must not end its thread."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from edgekit_agent.lean import without_tls
without_tls()
import socket
import paho.mqtt.client as paho
import edgekit_agent.mqtt
ours, theirs = socket.socketpair()
ours.setblocking(False)
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client._sock = ours
for call in (lambda: client._sock_recv(1), lambda: [client._sock_send(b"x" * 65536) for _ in range(100)]):
    try:
        call()
    except BlockingIOError:
        print("blocked")
"""


def test_a_read_or_write_that_would_block_is_no_error_of_the_link() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["blocked", "blocked"], done.stderr
