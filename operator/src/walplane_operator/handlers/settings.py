"""What the operator is told by its environment. Layer: handlers."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Environment variables `WALPLANE_OPERATOR_…`."""

    model_config = SettingsConfigDict(env_prefix="WALPLANE_OPERATOR_", frozen=True)

    image: str = ""
    """Image of new clusters that name none."""
    namespace: str = "default"
    """Where the operator's own Lease lies."""
    identity: str = ""
    """Of this process in that Lease; made up if empty."""
    lease_seconds: float = Field(default=15.0, gt=0)
    """Duration of the operator's own Lease."""
    listen: str = ":8080"
    """Health and metrics, host:port; without a host on every address, IPv4 and IPv6."""
    resync_seconds: float = Field(default=30.0, gt=0)
    """Every WALCluster is looked at this often, whatever the watches say."""
    workers: int = Field(default=8, gt=0)
    """WALClusters reconciled at a time."""
