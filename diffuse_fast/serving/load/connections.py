"""A small HTTP/1.1 client that keeps its connections. It follows no redirects and uses no proxy."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from ...errors import ArgumentError


class Connections:
    """Connections to one server. The name is resolved once, so all traffic goes to the address that was checked.

    Args:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT``.
        key: API key; None sends none.
        allow_remote: Also accept addresses of other machines.

    Raises:
        ArgumentError: the URL is malformed, or has an address that is not a loopback address and ``allow_remote`` is False.
    """

    def __init__(self, url: str, *, key: str | None = None, allow_remote: bool = False) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ArgumentError(f"{url!r} is not a URL: {error}.") from None
        if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query or parts.username:
            raise ArgumentError(f"{url!r} must be http://HOST:PORT or https://HOST:PORT.")
        self._name = host
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = port or (443 if self._ssl else 80)
        self._address = _resolve(host, self._port, allow_remote)
        authorization = "" if key is None else f"Authorization: Bearer {key}\r\n"
        self._head = f"Host: {parts.netloc}\r\n{authorization}Content-Type: application/json\r\n"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        """Send a request and read its answer.

        Returns:
            The status and the body.

        Raises:
            OSError, EOFError: the connection failed.
            ValueError: the answer is not HTTP/1.1.
        """
        data = b"" if body is None else json.dumps(body).encode()
        message = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        while self._idle:
            reader, writer = self._idle.pop()
            if reader.at_eof() or writer.is_closing():
                writer.close()
                continue
            answer = await self._exchange(reader, writer, message)
            if answer is not None:
                return answer
        streams = await asyncio.open_connection(
            self._address, self._port, ssl=self._ssl, server_hostname=self._name if self._ssl else None
        )
        answer = await self._exchange(*streams, message)
        if answer is None:
            raise ConnectionResetError("the server closed the connection without an answer.")
        return answer

    async def aclose(self) -> None:
        """Close the connections that are idle."""
        for _, writer in self._idle:
            writer.close()
        for _, writer in self._idle:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self._idle.clear()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes
    ) -> tuple[int, bytes] | None:
        """The answer; None if the connection ended before it, as servers do with one that was idle for long."""
        keep = False
        try:
            try:
                writer.write(message)
                await writer.drain()
                line = await reader.readline()
            except ConnectionError:
                return None
            if not line:
                return None
            version, status, *_ = line.split(None, 2)
            headers = {}
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                name, _, value = line.partition(b":")
                headers[name.strip().lower()] = value.strip().lower()
            if headers.get(b"transfer-encoding") == b"chunked":
                body = await _chunks(reader)
            else:
                body = await reader.readexactly(int(headers[b"content-length"]) if b"content-length" in headers else 0)
            keep = version == b"HTTP/1.1" and headers.get(b"connection") != b"close"
            return int(status), body
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readuntil(b"\r\n")
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return b"".join(parts)


def _resolve(host: str, port: int, allow_remote: bool) -> str:
    """The address of a name."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise ArgumentError(f"the host {host!r} has no address: {error}.") from None
    remote = [address for address in found if not ipaddress.ip_address(address.partition("%")[0]).is_loopback]
    if remote and not allow_remote:
        raise ArgumentError(f"{host} is {remote[0]}, which is not this machine; --allow-remote sends load to it.")
    return found[0]
