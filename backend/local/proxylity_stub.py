"""Lambda: answers for Custom::ProxylityUdpGatewayListener and ...PacketSource where `raptor gateway` stands in for Proxylity.

It makes nothing: it says the address and the public key of the gateway that runs here anyway, and fails loudly where a property
is missing that the real resource needs. Standard library only; deployed by itself, not with the backend.

Invariant: CloudFormation always gets an answer, and a Delete never fails.
"""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

_NEEDED = {
    "Custom::ProxylityUdpGatewayListener": ("ApiKey", "Protocols", "Destinations"),
    "Custom::ProxylityUdpGatewayPacketSource": ("ApiKey", "ListenerName", "SnsTopicSource"),
}


def handler(event: dict[str, Any], context: Any) -> None:
    answer = {
        "Status": "SUCCESS",
        "PhysicalResourceId": event.get("PhysicalResourceId") or f"local-{event['LogicalResourceId'].lower()}",
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    if event["RequestType"] != "Delete":
        answer |= _made(event["ResourceType"], event["ResourceProperties"])
    request = urllib.request.Request(event["ResponseURL"], json.dumps(answer).encode(), method="PUT")  # noqa: S310
    urllib.request.urlopen(request, timeout=10).read()  # noqa: S310


def _made(resource_type: str, properties: dict[str, Any]) -> dict[str, Any]:
    if resource_type not in _NEEDED:
        return {"Status": "FAILED", "Reason": f"no stub for {resource_type}"}
    missing = [name for name in _NEEDED[resource_type] if not properties.get(name)]
    for destination in properties.get("Destinations", ()):
        missing += [name for name in ("DestinationArn", "Role", "Batching") if not destination.get(name)]
    if missing:
        return {"Status": "FAILED", "Reason": f"{resource_type} lacks {', '.join(missing)}"}
    if resource_type.endswith("PacketSource"):
        return {}
    return {
        "Data": {
            "Domain": os.environ["LISTENER_DOMAIN"],
            "Port": os.environ["LISTENER_PORT"],
            "WireGuardPublicKey": os.environ["LISTENER_PUBLIC_KEY"],
        }
    }
