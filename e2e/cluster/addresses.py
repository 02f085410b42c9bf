"""Which addresses the local cluster has: IPv4's, or by S4_E2E_VARIANT `ipv6` those alone, `dual` both. With `zones` its
hosts are two in a zone. With `upgrade` S4 begins as 0.7 (conftest.py)."""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIANT = os.environ.get("S4_E2E_VARIANT", "")
if VARIANT not in ("", "ipv6", "dual", "zones", "upgrade"):
    raise SystemExit(f"S4_E2E_VARIANT is ipv6, dual, zones or upgrade, not {VARIANT}")


@dataclass(frozen=True)
class Family:
    """Addresses of one family. `host` is this machine's, where the API server listens; `pods` and `services` are nets,
    `api` the Service of the API server."""

    version: int
    host: str
    bits: int
    pods: str
    services: str
    api: str
    everywhere: str

    def node(self, number: int) -> str:
        return f"10.99.0.1{number}" if self.version == 4 else f"fd00:99::1{number}"

    def pods_of(self, number: int) -> str:
        return f"10.244.{number}.0/24" if self.version == 4 else f"fd00:244:0:{number}::/64"


V4 = Family(4, "10.99.0.1", 24, "10.244.0.0/16", "10.96.0.0/16", "10.96.0.1", "0.0.0.0/0")
V6 = Family(6, "fd00:99::1", 64, "fd00:244::/48", "fd00:96::/112", "fd00:96::1", "::/0")
FAMILIES = {"ipv6": (V6,), "dual": (V4, V6)}.get(VARIANT, (V4,))
HOST = FAMILIES[0].host


def zone(number: int) -> str:
    return f"zone{(number + 1) // 2 if VARIANT == 'zones' else number}"


def url(host: str, port: int) -> str:
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
