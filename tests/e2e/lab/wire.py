"""What goes over the wire from nodes to the broker, read along on the bridge: every MQTT PUBLISH, whole and in order.

The broker lets nobody listen but the controller, and a second client with the controller's name would take its place. So this
reads the packets themselves (packet(7)), puts each connection's bytes together, and takes the messages out (OASIS MQTT
3.1.1, section 3.3). Nobody notices, and what is seen is what was said. `log/wire.log` has it all.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
import time
from collections.abc import Callable

import msgspec

from litho import messages

from .world import PATIENCE, World

_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _ETH_P_IP = 26, 33, 0x0800
_FILTER = (
    # `tcpdump -dd 'tcp dst port 1883'`: only these packets wake us, of all that NFS and HTTP carry.
    (0x28, 0, 0, 12), (0x15, 0, 8, _ETH_P_IP), (0x30, 0, 0, 23), (0x15, 0, 6, 6), (0x28, 0, 0, 20), (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 14), (0x48, 0, 0, 16), (0x15, 0, 1, 1883), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0),
)  # fmt: skip
_PUBLISH = 3


class Said(msgspec.Struct, frozen=True):
    """One message, at the lab's clock."""

    at: float
    topic: str
    payload: bytes


class Stream:
    """One connection's bytes, in order; what comes twice or too early is put right."""

    def __init__(self, start: int) -> None:
        self._next = start
        self._early: dict[int, bytes] = {}
        self.bytes = bytearray()

    def take(self, number: int, data: bytes) -> None:
        """A segment with its sequence number."""
        if data:
            self._early[number] = data
        for at in sorted(self._early, key=self._ahead):
            if self._ahead(at) > 0:
                break
            fresh = self._early.pop(at)[-self._ahead(at) :]
            self.bytes += fresh
            self._next = (self._next + len(fresh)) % 2**32

    def _ahead(self, number: int) -> int:
        """How far a sequence number is before or behind what is wanted now."""
        return (number - self._next + 2**31) % 2**32 - 2**31


def packets(data: bytearray) -> list[tuple[int, bytes]]:
    """Take the whole MQTT packets off the front: (first byte, the rest behind the length)."""
    found = []
    while True:
        length, shift, at = 0, 0, 1
        while at < len(data) and data[at] & 0x80:
            length |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
        if at >= len(data):
            return found
        length |= data[at] << shift
        if len(data) < at + 1 + length:
            return found
        found.append((data[0], bytes(data[at + 1 : at + 1 + length])))
        del data[: at + 1 + length]


class Wire:
    """The listener; `said` grows while the lab runs."""

    def __init__(self, world: World) -> None:
        self.said: list[Said] = []
        self._world = world
        self._streams: dict[bytes, Stream] = {}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
        code = b"".join(struct.pack("HBBI", *line) for line in _FILTER)
        held = ctypes.create_string_buffer(code)
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(_FILTER), ctypes.addressof(held))
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 * 1024 * 1024)
        self._socket.bind(("br0", _ETH_P_IP))
        self._socket.settimeout(0.2)
        self._open = True
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def progress(self, node: str) -> list[messages.ProgressReport]:
        """The reports of a node's progress so far, read by the strict parser."""
        topic = messages.topic("lab", node, "progress")
        return [messages.decode(one.payload, messages.ProgressReport) for one in list(self.said) if one.topic == topic]

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait until what was said fulfils `condition`."""
        until = time.monotonic() + timeout_s * PATIENCE
        while not condition():
            assert time.monotonic() < until, f"nobody said on MQTT within {timeout_s} s: {what}"
            time.sleep(0.1)

    def close(self) -> None:
        """Stop listening."""
        self._open = False
        self._thread.join(5)
        self._socket.close()

    def _listen(self) -> None:
        with (self._world.folder / "log/wire.log").open("a", buffering=1) as log:
            while self._open:
                try:
                    frame = self._socket.recv(0x40000)
                except TimeoutError:
                    continue
                for first, body in self._take(frame[14:]):
                    if first >> 4 != _PUBLISH:
                        continue
                    size = int.from_bytes(body[:2], "big")
                    topic, rest = body[2 : 2 + size].decode(errors="replace"), body[2 + size :]
                    one = Said(self._world.clock, topic, rest[2:] if first & 0b110 else rest)
                    log.write(f"[{one.at:7.1f}] {topic} {one.payload.decode(errors='replace')}\n")
                    self.said.append(one)

    def _take(self, packet: bytes) -> list[tuple[int, bytes]]:
        """An IPv4 packet with a TCP segment; answers the MQTT packets that are whole by it."""
        size = int.from_bytes(packet[2:4], "big")
        head = (packet[0] & 15) * 4
        tcp = packet[head:size]
        number, offset, flags = int.from_bytes(tcp[4:8], "big"), (tcp[12] >> 4) * 4, tcp[13]
        who = packet[12:16] + tcp[:2]
        if flags & 2:
            self._streams[who] = Stream((number + 1) % 2**32)
            return []
        stream = self._streams.get(who)
        if stream is None:
            return []
        stream.take(number, tcp[offset:])
        return packets(stream.bytes)
