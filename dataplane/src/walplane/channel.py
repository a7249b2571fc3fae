"""Names of channels and topics, and the one function that routes keys to shards.

Contract: pure; a name either parses to what it says or raises `InvalidChannelName` with the form
that was expected. Layer: lowest.

    PChannel  <prefix>_<index>                      by-dev-rootcoord-dml_0
    VChannel  <pchannel>_<collectionID>v<shard>     by-dev-rootcoord-dml_0_12345v0
    CChannel  <pchannel>_vcchan                     by-dev-rootcoord-dml_0_vcchan
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import google_crc32c

MAX_PCHANNELS = 1024
"""PChannels a cluster may have, at most."""

CLAIM_PROPERTY = "walplane-claim"
"""Property of a topic, where the backend has such: whose it is."""

_PREFIX = r"[A-Za-z0-9](?:[-_A-Za-z0-9]*[A-Za-z0-9])?"
_NUMBER = r"(?:0|[1-9][0-9]*)"  # one way to write it: names are compared as text
_PCHANNEL = re.compile(rf"(?P<prefix>{_PREFIX})_(?P<number>{_NUMBER})")
_VCHANNEL = re.compile(
    rf"(?P<pchannel>{_PREFIX}_{_NUMBER})_(?P<collection>{_NUMBER})v(?P<shard>{_NUMBER})"
)
_CCHANNEL = re.compile(rf"(?P<pchannel>{_PREFIX}_{_NUMBER})_vcchan")


class InvalidChannelName(ValueError):
    """The name is not of the form that the message gives."""


@dataclass(frozen=True, order=True)
class VChannelName:
    """The parts of a VChannel's name."""

    pchannel: str
    collection_id: int
    shard: int

    def __str__(self) -> str:
        """The name as it stands in messages."""
        return f"{self.pchannel}_{self.collection_id}v{self.shard}"

    @classmethod
    def parse(cls, name: str) -> VChannelName:
        """The parts of `name`.

        Raises:
            InvalidChannelName: `name` is no VChannel.
        """
        match = _VCHANNEL.fullmatch(name)
        if match is None:
            raise InvalidChannelName(
                f"{name!r} is no VChannel: expected <pchannel>_<collectionID>v<shard>"
            )
        return cls(match["pchannel"], int(match["collection"]), int(match["shard"]))


def pchannel_name(prefix: str, number: int) -> str:
    """The PChannel `number` (from 0) of the cluster with `prefix`."""
    name = f"{prefix}_{number}"
    if _PCHANNEL.fullmatch(name) is None:
        raise InvalidChannelName(f"{prefix!r} is no channel prefix: letters, digits, - and _ only")
    return name


def is_pchannel(name: str) -> bool:
    """Whether `name` has the form of a PChannel."""
    return _PCHANNEL.fullmatch(name) is not None and not is_vchannel(name)


def is_vchannel(name: str) -> bool:
    """Whether `name` has the form of a VChannel or of a CChannel."""
    return _VCHANNEL.fullmatch(name) is not None or _CCHANNEL.fullmatch(name) is not None


def is_cchannel(name: str) -> bool:
    """Whether `name` has the form of a CChannel."""
    return _CCHANNEL.fullmatch(name) is not None


def cchannel_name(pchannel: str) -> str:
    """The control channel bound to `pchannel`."""
    return f"{pchannel}_vcchan"


def pchannel_of(vchannel: str) -> str:
    """The PChannel that carries `vchannel`, a VChannel or a CChannel.

    Raises:
        InvalidChannelName: it is neither.
    """
    match = _CCHANNEL.fullmatch(vchannel)
    return match["pchannel"] if match else VChannelName.parse(vchannel).pchannel


def carrier_of(vchannel: str) -> str:
    """As `pchannel_of`, for a name that was checked before; nothing for no name."""
    return vchannel.rpartition("_")[0]


def meta_topic(pchannel: str) -> str:
    """The topic that holds the metadata of `pchannel`."""
    return f"{pchannel}-meta"


def coord_topic(prefix: str) -> str:
    """The coordinator's meta topic."""
    return f"{prefix}-coord-meta"


def shard_of(key: bytes, shards: int) -> int:
    """The shard of a row: crc32c(key) mod shards. Never changed after a release."""
    return int(google_crc32c.value(key)) % shards
