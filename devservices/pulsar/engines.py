"""What runs a broker: Java with the jars that Maven collects, or a container of the upstream image.

Contract: an engine starts one broker with a given configuration file and says whether it lives; it
knows nothing about readiness. `choose` names in one line what is missing and how to get it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devservices.pulsar.locks import locked

SUPPORT = Path(__file__).resolve().parent
HOME = SUPPORT.parent.parent / ".devservices" / "pulsar"
VERSION = "4.2.4"
IMAGE_VARIABLE = "WALPLANE_PULSAR_IMAGE"
_JVM = (
    *("-Xms128m", "-Xmx768m", "-XX:MaxDirectMemorySize=512m"),
    *("-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExitOnOutOfMemoryError"),
    *(
        f"--add-opens={module}=ALL-UNNAMED"
        for module in (
            *("java.base/java.io", "java.base/java.util.zip", "java.base/java.nio"),
            *("java.base/jdk.internal.misc", "java.base/sun.net", "java.management/sun.management"),
            "java.base/jdk.internal.platform",
        )
    ),
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dlog4j2.is.webapp=false",
    "-Dlog4j.shutdownHookEnabled=false",
    "-Dpulsar.log.level=info",
    *(
        f"-Dbookkeeper.metadata.{side}.drivers=org.apache.pulsar.metadata.bookkeeper.{driver}"
        for side, driver in (
            ("bookie", "PulsarMetadataBookieDriver"),
            ("client", "PulsarMetadataClientDriver"),
        )
    ),
)


class PrerequisiteMissingError(Exception):
    """Nothing here can run a Pulsar; the message says what to install."""


@dataclass(frozen=True)
class Layout:
    """Where one broker keeps its things and where it listens.

    Attributes:
        data: directory of everything the broker writes.
        port: binary protocol, on loopback.
        admin_port: admin REST, on loopback.
        bookie_port: fixed for the life of the data: the bookie's identity.
    """

    data: Path
    port: int
    admin_port: int
    bookie_port: int

    @property
    def conf(self) -> Path:
        """The broker's configuration file."""
        return self.data / "standalone.conf"

    @property
    def log(self) -> Path:
        """The broker's log file."""
        return self.data / "pulsar.log"


class Engine(Protocol):
    """Starts one broker; `handle` is what names it afterwards (a pid, a container name)."""

    def start(self, layout: Layout) -> str:
        """Starts the broker in the background and returns its handle."""
        ...

    def alive(self, handle: str, layout: Layout) -> bool:
        """Whether that very broker still runs."""
        ...

    def signal(self, handle: str, layout: Layout, number: signal.Signals) -> None:
        """Sends SIGTERM, SIGKILL or SIGQUIT, if it still runs; does not wait."""
        ...


class JavaEngine:
    """A JVM on this machine, in a session of its own; the handle is its pid."""

    def start(self, layout: Layout) -> str:
        """Collects the jars if need be, then starts the JVM; its output goes to the log file."""
        lib = collect_jars()
        command = [
            *("java", *_JVM, f"-Dlog4j.configurationFile={SUPPORT / 'log4j2.properties'}"),
            *(f"-Dwalplane.data={layout.data}", "-cp", f"{lib}/*"),
            *("org.apache.pulsar.PulsarStandaloneStarter", "--config", str(layout.conf)),
            *("-a", "127.0.0.1", "-nfw", "-nss", f"--bookkeeper-port={layout.bookie_port}"),
        ]
        with layout.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=layout.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return str(process.pid)

    def alive(self, handle: str, layout: Layout) -> bool:
        """Whether the pid still is the JVM of this data directory, and no zombie."""
        with contextlib.suppress(ChildProcessError, ValueError):
            os.waitpid(int(handle), os.WNOHANG)  # ours: reap it, or it would look alive
        shown = subprocess.run(
            ["ps", "-ww", "-o", "stat=,command=", "-p", handle],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        return f"-Dwalplane.data={layout.data} " in shown and not shown.startswith("Z")

    def signal(self, handle: str, layout: Layout, number: signal.Signals) -> None:
        """Sends the signal to the JVM."""
        if self.alive(handle, layout):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(handle), number)


class DockerEngine:
    """The upstream image in a container on the host's network; the handle is its name."""

    def __init__(self, image: str) -> None:
        """`image` is pulled by docker when it is not there."""
        self._image = image

    def start(self, layout: Layout) -> str:
        """Starts (or starts again) the container of this data directory."""
        name = f"walplane-pulsar-{layout.port}"
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
        command = [
            *("docker", "run", "-d", "--name", name, "--network", "host"),
            *("--user", f"{os.getuid()}:0", "-e", f"PULSAR_STANDALONE_CONF={layout.conf}"),
            *("-e", "PULSAR_MEM=-Xms128m -Xmx768m -XX:MaxDirectMemorySize=512m"),
            *("-v", f"{layout.data}:{layout.data}", self._image, "bin/pulsar", "standalone"),
            *("-a", "127.0.0.1", "-nfw", "-nss", f"--bookkeeper-port={layout.bookie_port}"),
            *("--metadata-dir", f"{layout.data}/data/metadata"),
            *("--bookkeeper-dir", f"{layout.data}/data/standalone/bookkeeper"),
        ]
        started = subprocess.run(command, capture_output=True, text=True, check=False)
        if started.returncode:
            raise PrerequisiteMissingError(
                f"docker cannot run {self._image} ({_last_line(started.stderr)}): set "
                f"{IMAGE_VARIABLE} to an image it has, or {_INSTALL}"
            )
        return name

    def alive(self, handle: str, layout: Layout) -> bool:
        """Whether the container runs."""
        command = ["docker", "inspect", "-f", "{{.State.Running}}", handle]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        return shown.stdout.strip() == "true"

    def signal(self, handle: str, layout: Layout, number: signal.Signals) -> None:
        """Sends the signal to the container's first process."""
        command = ["docker", "kill", "--signal", number.name, handle]
        subprocess.run(command, capture_output=True, check=False)


_INSTALL = "apt-get install default-jre-headless maven (Java 17 or newer)"


def choose() -> Engine:
    """Java where Java and the jars (or Maven to get them) are there, else docker.

    Raises:
        PrerequisiteMissingError: neither is there.
    """
    if os.environ.get(IMAGE_VARIABLE):
        return DockerEngine(os.environ[IMAGE_VARIABLE])
    if _java_version() >= 17 and (_jars().is_dir() or shutil.which("mvn")):
        return JavaEngine()
    docker = shutil.which("docker")
    if docker and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        return DockerEngine(f"apachepulsar/pulsar:{VERSION}")
    raise PrerequisiteMissingError(f"a Pulsar needs Java and Maven: {_INSTALL}; or a docker")


def collect_jars() -> Path:
    """The directory with the broker's jars; Maven fetches them at the first call (about 180 MB).

    Raises:
        PrerequisiteMissingError: Maven could not fetch them.
    """
    lib = _jars()
    with locked(HOME / "jars.lock"):
        if lib.is_dir():
            return lib
        partial = lib.with_name(lib.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        command = [
            *("mvn", "-B", "-q", "-f", str(SUPPORT / "pom.xml"), f"-Dpulsar.version={VERSION}"),
            *("dependency:copy-dependencies", f"-DoutputDirectory={partial}"),
            "-DincludeScope=runtime",
        ]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        if fetched.returncode:
            raise PrerequisiteMissingError(
                "Maven could not fetch Pulsar's jars; is Maven Central or a mirror reachable? "
                + _last_line(fetched.stdout + fetched.stderr)
            )
        partial.rename(lib)
    return lib


def wait_gone(engine: Engine, handle: str, layout: Layout, timeout: float) -> bool:
    """Waits up to `timeout` seconds until the broker is gone; whether it is."""
    deadline = time.monotonic() + timeout
    while engine.alive(handle, layout):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _jars() -> Path:
    return HOME / f"lib-{VERSION}"


def _java_version() -> int:
    java = shutil.which("java")
    if not java:
        return 0
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', shown)
    return int(found.group(1)) if found else 0


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
