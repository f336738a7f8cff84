"""Nothing goes over the network, and the page outlives garbage on its socket."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from evaluation.setups import write_sequence
from plane_world import SweepNetwork
from view.synthetic import HillWorld, write_results

from faults.harness import RERUN, arguments, write_inputs
from nasrecon import cli
from nasrecon.view.live import LivePage

GARBAGE = (
    b"",
    b"\0" * 5000,
    b"\xff\xfe" * 300 + b"\r\n\r\n",
    b"GET " + b"a" * 100_000,
    b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: !\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff",
)


def _small_network(name, device="auto"):
    network = SweepNetwork()
    network.weights, network.sha256 = str(name), "ab" * 32
    return network


def test_no_command_opens_a_socket(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    write_sequence(tmp_path / "sequence")
    opened = []

    def refused(*args, **_):
        opened.append(args)
        raise OSError("sockets are blocked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasrecon.nas.weights.load_network", _small_network)
    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refused)
    commands = (
        RERUN,
        "fuse results --min-views 1 --min-component-faces 0",
        "eval frames sequence --every 2 --offset 1",
        "export results --format pfm --out pfm",
        "viz results --png sheet.png",
    )
    for command in commands:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments(command))
        assert not end.value.code, command
    assert opened == []


@pytest.fixture
def page(tmp_path):
    write_results(tmp_path / "results", HillWorld(), views=2, size=(64, 48), finished=1)
    (tmp_path / "secret.txt").write_text("secret")
    opened = LivePage(tmp_path / "results", port=18300)
    yield opened
    opened.close()


def test_the_page_outlives_garbage_and_serves_this_machine_only(page):
    for content in GARBAGE:
        with socket.create_connection(("127.0.0.1", page.port), timeout=5) as sent:
            sent.sendall(content)
    for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/etc/passwd", "//etc/passwd"):
        with socket.create_connection(("127.0.0.1", page.port), timeout=5) as asked:
            asked.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda asked=asked: asked.recv(65536), b""))
        assert b"root:" not in answer and b"secret" not in answer
    with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/", timeout=10) as answer:
        assert answer.status == 200 and b"<html" in answer.read().lower()
    page.step()
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1", "127.0.1.1"}:
        with socket.socket() as outside:
            outside.settimeout(1)
            assert outside.connect_ex((address, page.port)) != 0
