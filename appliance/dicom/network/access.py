"""Who may send: calling AE title and address must both match one entry; an empty list admits nobody."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.config import Peer

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class AllowList:
    """The peers that may open an association.

    Attributes
    ----------
    entries
        Calling AE title and network; both must match in the same entry.
    """

    entries: tuple[tuple[str, _Network], ...]

    @classmethod
    def from_peers(cls, peers: Iterable[Peer]) -> AllowList:
        """Build the list from the configuration, which has checked the addresses."""
        return cls(tuple((peer.ae_title.strip(), ipaddress.ip_network(peer.address, strict=False)) for peer in peers))

    def admits(self, calling_ae_title: str, address: str) -> bool:
        """Return whether this caller may open an association.

        Parameters
        ----------
        calling_ae_title
            As in the A-ASSOCIATE-RQ; leading and trailing spaces do not count (PS3.8 Table 9-11).
        address
            IP address of the other end of the connection, never a name: nothing here asks a name server.
        """
        try:
            peer = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        title = calling_ae_title.strip()
        return any(title == entry_title and peer in network for entry_title, network in self.entries)
