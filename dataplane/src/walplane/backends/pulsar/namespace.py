"""The namespace that holds walplane's topics: made in one call, judged at open. Layer: backends."""

from __future__ import annotations

from walplane.backends.pulsar.admin import Admin
from walplane.backends.pulsar.config import PulsarConfig
from walplane.rpc.errors import ErrorCode, WalError

_POLICIES = {
    "deduplicationEnabled": True,
    # a topic without its subscription keeps everything; its first truncation lowers this
    "retention_policies": {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1},
    "message_ttl_in_seconds": 0,
    "subscription_expiration_time_minutes": 0,
    "backlog_quota_map": {
        "destination_storage": {
            "limitSize": -1,
            "limitTime": -1,
            "policy": "producer_request_hold",
        }
    },
    "inactive_topic_policies": {
        "inactiveTopicDeleteMode": "delete_when_no_subscriptions",
        "maxInactiveDurationSeconds": 86400,
        "deleteWhileInactive": False,
    },
    "autoTopicCreationOverride": {"allowAutoTopicCreation": False},
}


async def ensure_namespace(admin: Admin, config: PulsarConfig) -> None:
    """Makes the namespace, and its tenant, when they are missing.

    Raises:
        WalError: UNRECOVERABLE when an existing one would drop our subscription; INNER when the
            admin service does not answer or refuses.
    """
    path = f"/namespaces/{config.namespace}"
    policies = await admin.get(path)
    if policies is None:
        tenant = config.namespace.partition("/")[0]
        if await admin.get(f"/tenants/{tenant}") is None:
            clusters = await admin.get("/clusters")
            await admin.put(f"/tenants/{tenant}", {"adminRoles": [], "allowedClusters": clusters})
        await admin.put(path, _POLICIES)
        return
    if (policies.get("subscription_expiration_time_minutes") or 0) > 0:
        raise WalError(
            ErrorCode.UNRECOVERABLE,
            f"Pulsar's namespace {config.namespace} lets subscriptions expire, and with ours the "
            "data: pulsar-admin namespaces set-subscription-expiration-time -t 0 "
            f"{config.namespace}",
        )
