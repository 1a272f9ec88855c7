"""An app behind a test client, spoken to in the API's types."""

import io

import msgspec

from litho.messages import Problem


class Door:
    """Asks, and expects an answer or a refusal."""

    def __init__(self, client) -> None:
        self.client = client

    async def ask(self, method, path, shape, body=None, **query):
        payload = msgspec.json.encode(body) if isinstance(body, msgspec.Struct) else body
        answer = await self.client.request(method, path, params=query, data=payload)
        data = await answer.read()
        assert answer.status == 200, data
        return msgspec.json.decode(data, type=shape)

    async def refused(self, method, path, body=None, **query):
        payload = msgspec.json.encode(body) if isinstance(body, msgspec.Struct) else body
        answer = await self.client.request(method, path, params=query, data=io.BytesIO(payload or b""))
        return answer.status, msgspec.json.decode(await answer.read(), type=Problem)
