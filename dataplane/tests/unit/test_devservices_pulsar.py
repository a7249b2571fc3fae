"""The Pulsar of development: prerequisites, liveness, shares, ports; no broker is started."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from devservices.pulsar import URL_VARIABLE, PrerequisiteMissingError, PulsarError, PulsarProcess
from devservices.pulsar.__main__ import main
from devservices.pulsar.engines import JavaEngine, Layout, choose
from devservices.pulsar.locks import is_shared, share
from devservices.pulsar.process import _healthy


def test_missing_prerequisites_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with pytest.raises(PrerequisiteMissingError, match="apt-get install default-jre-headless mav"):
        choose()
    assert main(["start", "--data", str(tmp_path / "data")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_given_url_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "pulsar://elsewhere")
    assert [main([command]) for command in ("start", "status", "stop")] == [0, 0, 0]
    assert capsys.readouterr().out == "pulsar://elsewhere\n" * 3


def test_alive_knows_the_process_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    layout = Layout(tmp_path, 1, 2, 3)
    command = [sys.executable, "-c", "input()", "x" * 100, f"-Dwalplane.data={tmp_path}", "end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert JavaEngine().alive(str(process.pid), layout)
        assert not JavaEngine().alive(str(process.pid), Layout(tmp_path / "other", 1, 2, 3))
        process.kill()
    assert not JavaEngine().alive(str(process.pid), layout)


def test_a_share_is_seen_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "users.lock"
    first, second = share(path), share(path)
    first.close()
    assert is_shared(path)
    second.close()
    assert not is_shared(path)


def test_a_taken_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devservices.pulsar.process.choose", JavaEngine)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        state = {"port": port, "admin_port": port, "bookie_port": port, "handle": ""}
        (tmp_path / "state.json").write_text(json.dumps(state))
        with pytest.raises(PulsarError, match=f"port {port} is taken"):
            PulsarProcess(tmp_path).start()


@pytest.mark.parametrize(
    ("health", "namespaces", "usable"),
    [
        (b"ok", b'["public/default"]', True),
        (b"ok", b"[]", False),
        (b"ok", None, False),
        (b"no", b'["public/default"]', False),
    ],
)
def test_a_broker_is_there_once_its_first_namespace_is(
    tmp_path: Path, health: bytes, namespaces: bytes | None, usable: bool
) -> None:
    answers = {"/admin/v2/brokers/health": health, "/admin/v2/namespaces/public": namespaces}

    class Admin(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[self.path]
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None:
            """Nothing: the test's output is its own."""

    with http.server.HTTPServer(("127.0.0.1", 0), Admin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert _healthy(Layout(tmp_path, 1, server.server_port, 2)) is usable
        finally:
            server.shutdown()
