"""The lab reads MQTT from packets: whatever way TCP cuts, repeats and reorders them, the messages come out whole and in order."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from e2e.lab.wire import Stream, packets


def publish(topic: str, payload: bytes) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + payload
    length, left = b"", len(body)
    while True:
        length += bytes([left % 128 | (0x80 if left >= 128 else 0)])
        left //= 128
        if not left:
            return b"\x30" + length + body


@given(
    payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=3000), max_size=12),
    start=st.integers(min_value=2**32 - 1000, max_value=2**32 - 1),
    data=st.data(),
)
def test_messages_survive_any_cutting_repeating_and_reordering_of_their_segments(payloads, cuts, start, data):
    whole = b"".join(publish("t", payload) for payload in payloads)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    segments = [(begin, whole[begin:end]) for begin, end in itertools.pairwise(places)]
    sent = data.draw(st.permutations(segments + data.draw(st.lists(st.sampled_from(segments), max_size=4))))
    stream, found = Stream(start), []
    for at, piece in sent:
        stream.take((start + at) % 2**32, piece)
        found += packets(stream.bytes)
    assert [body[3:] for _, body in found] == payloads
    assert stream.bytes == b""
