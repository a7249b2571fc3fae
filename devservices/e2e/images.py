"""The images of an end-to-end run: built or named, then loaded into the workers."""

from __future__ import annotations

import os
from dataclasses import dataclass

from devservices.images import base, pulsar, walplane
from devservices.kind import KindCluster
from devservices.pulsar.engines import IMAGE_VARIABLE, VERSION

TAG = "walplane:e2e"


@dataclass(frozen=True)
class Images:
    """Names of images that the workers have, or can pull.

    Attributes:
        walplane: of this checkout.
        pulsar: upstream's, or the stand-in for it.
    """

    walplane: str
    pulsar: str


def prepare(cluster: KindCluster) -> Images:
    """Builds walplane's image and loads it; the others are upstream's where they can be pulled.

    Raises:
        RuntimeError: a tool that builds a stand-in is missing.
        subprocess.CalledProcessError: a build failed.
    """
    if not cluster.local:
        base_image = os.environ.get("WALPLANE_BASE_IMAGE", "")
        walplane.build(TAG, base_image, os.environ.get("PIP_INDEX_URL", ""))
        cluster.load(TAG)
        return Images(TAG, os.environ.get(IMAGE_VARIABLE, f"apachepulsar/pulsar:{VERSION}"))
    walplane.build(TAG, base.ensure(), offline=True)
    images = Images(TAG, pulsar.ensure())
    cluster.load(images.walplane, images.pulsar)
    return images
