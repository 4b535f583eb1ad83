"""Uploads images to Straico. Only the calls are here; `images` builds their bodies."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from sanic_proxy.openai import codec
from sanic_proxy.providers.straico.images import Image, Upload, multipart, uploaded_url
from sanic_proxy.upstream.client import Endpoint, UpstreamClient

MAX_AT_ONCE = 4
MAX_CACHED = 256
CACHE_S = 600.0


class Uploads:
    """The uploads of one worker. Their URLs are cached, because a conversation repeats its images.

    `endpoint` has no content-type header, because the boundary differs for each body.
    """

    def __init__(self, client: UpstreamClient, endpoint: Endpoint) -> None:
        self._client = client
        self._endpoint = endpoint
        self._cache: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    async def resolve(self, images: Iterable[Image], total_at: float) -> list[str]:
        """The URL of each image, in order. `total_at` (loop time) is the deadline.

        If an upload fails, the others are cancelled and its error is raised.
        """
        images = list(images)
        wanted = {image.digest: image for image in images if isinstance(image, Upload)}
        found = {digest: url for digest in wanted if (url := self._cached_url(digest)) is not None}
        missing = [upload for digest, upload in wanted.items() if digest not in found]
        if missing:
            found |= await self._upload_all(missing, total_at)
        return [found[image.digest] if isinstance(image, Upload) else image for image in images]

    async def _upload_all(self, uploads: Iterable[Upload], total_at: float) -> Mapping[bytes, str]:
        semaphore = asyncio.Semaphore(MAX_AT_ONCE)

        async def one(upload: Upload) -> str:
            async with semaphore:
                return await self._upload(upload, total_at)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {upload.digest: group.create_task(one(upload)) for upload in uploads}
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return {digest: task.result() for digest, task in tasks.items()}

    async def _upload(self, upload: Upload, total_at: float) -> str:
        boundary = secrets.token_hex(24)
        response = await self._client.send(
            self._endpoint,
            headers={"content-type": f"multipart/form-data; boundary={boundary}"},
            body=multipart(upload, boundary),
            total_at=total_at,
            is_fresh=True,
        )
        try:
            parsed: object = codec.loads_tolerant(await response.read_all())
        finally:
            response.close()
        url = uploaded_url(parsed)
        self._cache[upload.digest] = url, time.monotonic() + CACHE_S
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return url

    def _cached_url(self, digest: bytes) -> str | None:
        url, expires_at = self._cache.get(digest, (None, 0.0))
        return url if time.monotonic() < expires_at else None
