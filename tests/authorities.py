"""A certificate authority of the tests' own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, in files."""

    cert: str
    key: str


class Authority:
    """Makes certificates, for servers and for clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str) -> Identity:
        issued = self._ca.issue_cert(name)
        at = self._folder / str(len(list(self._folder.iterdir())))
        cert, key = f"{at}.crt", f"{at}.key"
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return Identity(cert, key)

    def trusting(self) -> ssl.SSLContext:
        """What a client needs to know the server."""
        return ssl.create_default_context(cafile=self.file)
