"""A network that calls another one."""

from __future__ import annotations

from typing import Any

from nasrecon.nas.network import Network


class NetworkWrapper:
    """Base of networks that add something to another; every attribute that they do not set is the other's."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.name, self.planes = network.name, network.planes
        self.size_multiple, self.min_side = network.size_multiple, network.min_side

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)
