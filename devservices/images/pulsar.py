"""A stand-in for upstream's Pulsar image, from Maven's jars: `python -m devservices.images.pulsar`.

Contract: `bin/pulsar standalone` with upstream's options, `PULSAR_MEM` and
`PULSAR_STANDALONE_CONF`, so that one pod specification runs either image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from devservices.images import base, docker
from devservices.pulsar.engines import SUPPORT, VERSION, collect_jars

TAG = f"walplane-pulsar:{VERSION}"
_FILES = Path(__file__).resolve().parent / "pulsar_files"
_OTHER_PLATFORMS = ("osx", "windows", "native-macos", "aarch_64", "native-io_uring")
_MODULES = (
    *("java.base", "java.compiler", "java.desktop", "java.instrument", "java.logging"),
    *("java.management", "java.management.rmi", "java.naming", "java.net.http", "java.prefs"),
    *("java.scripting", "java.security.jgss", "java.security.sasl", "java.sql", "java.xml"),
    *("jdk.attach", "jdk.crypto.ec", "jdk.jfr", "jdk.management", "jdk.naming.dns", "jdk.net"),
    *("jdk.unsupported", "jdk.zipfs"),
)


def ensure() -> str:
    """Makes the image if it is not there; returns its name.

    Raises:
        RuntimeError: jlink is missing.
        PrerequisiteMissingError: Maven could not fetch the jars.
        subprocess.CalledProcessError: a tool failed; what it said was printed.
    """
    if docker.has(TAG):
        return TAG
    if not shutil.which("jlink"):
        raise RuntimeError("a Pulsar image needs jlink: apt-get install openjdk-17-jdk-headless")
    with tempfile.TemporaryDirectory() as made:
        context = Path(made)
        _collect(context)
        docker.build(context, TAG, BASE=base.ensure())
    return TAG


def _collect(context: Path) -> None:
    """Everything the image is made of."""
    shutil.copytree(_FILES, context, dirs_exist_ok=True)
    shutil.copy(SUPPORT / "log4j2.properties", context)
    jars = [
        jar
        for jar in collect_jars().iterdir()
        if not any(platform in jar.name for platform in _OTHER_PLATFORMS)
    ]
    (context / "lib").mkdir()
    for jar in jars:
        try:
            os.link(jar, context / "lib" / jar.name)
        except OSError:  # another file system
            shutil.copy(jar, context / "lib")
    java = ["jlink", "--strip-debug", "--no-man-pages", "--no-header-files", "--compress=0"]
    modules = ["--add-modules", ",".join(_MODULES), "--output", str(context / "jre")]
    subprocess.run([*java, *modules], check=True)


if __name__ == "__main__":
    sys.exit(print(ensure()))
