"""What batches are charged: their input is read before they are created, their output while it is fetched.

The proxy reads the input file from the provider, since that is where it is, whichever worker or program has
uploaded it; and only where a budget of money, or one of a model, needs it. Reading costs bandwidth and time
of the worker, so the client's rates decide first, a client reads one file at a time, and a file has a limit.
`governance.batch_charge` has the rest.
"""

from __future__ import annotations

import time
from functools import partial

from typing_extensions import override

from sanic_proxy.errors import BodyTooLarge, ClientError, InvalidRequest, ProxyError
from sanic_proxy.governance.batch_charge import BatchBook, BatchCharge
from sanic_proxy.governance.batch_tables import OpenBatch
from sanic_proxy.governance.batches import BatchInput, BatchOutput, Seen, seen_in
from sanic_proxy.governance.governor import Governor, Request
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.endpoints import Row, resource_path
from sanic_proxy.providers.base import Call
from sanic_proxy.routing import attempts
from sanic_proxy.state import AppState
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.upstream.client import Response

OK = 200
NOT_FOUND = 404
_CONTENT = "/files/<id>/content"
# OpenAI's limit of an input file, https://platform.openai.com/docs/api-reference/batch/create; others have
# the same one, or a smaller one.
MAX_INPUT_BYTES = 200 * 2**20
# How many batches of a client the provider is asked for before a file that is not known is given out.
MAX_LOOKS = 32


def creates_batch(row: Row) -> bool:
    """Whether the endpoint creates batches."""
    return (row.method, row.path) == ("POST", "/batches")


async def charge_batch(
    state: AppState, governor: Governor, call: Call, targets: attempts.Targets, row: Row, fields: JsonMapping
) -> str:
    """Admit the creation of a batch, and have it reserve its cost. Returns header lines for its answer.

    Raises ProxyError, also those of reading the input file.
    """
    provider = targets[0].provider
    request = Request(call.record, call.headers, row.path, needs_listing=True)
    charge, _ = governor.admit(request, None, BatchCharge)
    meter = governor.batch_input(
        request,
        partial(state.batch_prices, provider),
        max_image_tokens=provider.settings.max_image_tokens,
        has_output=not str(fields.get("endpoint")).endswith("/embeddings"),
    )
    content = resource_path(_CONTENT, fields.get("input_file_id"))
    if meter is not None:
        if content is None:
            raise InvalidRequest(
                "A batch that may count in a budget needs the id of its input file",
                param="input_file_id",
            )
        with governor.reading_input(call.record):
            await _read(state, call, targets, content, meter)
        governor.count_batch(request, charge, meter)
    tariff = targets[0].tariff
    if tariff is not None and (pending := charge.reserve(tariff)) is not None:
        await pending
    call.charge = charge
    return governor.header_lines(charge, call.record.dialect)


async def _read(
    state: AppState, call: Call, targets: attempts.Targets, content: str, meter: BatchInput
) -> None:
    limit_bytes = min(state.settings.max_upload_bytes, MAX_INPUT_BYTES)
    found: list[ProxyError] = []  # no failure of the provider that is asked

    async def take(answer: Response) -> None:
        size_bytes = 0
        try:
            while piece := await answer.read_some():
                size_bytes += len(piece)
                if size_bytes > limit_bytes:
                    raise BodyTooLarge(f"The batch's input file has more than {limit_bytes} bytes")
                meter.feed(piece)
            meter.end()
        except ClientError as exc:
            found.append(exc)

    look = Call("GET", content, call.headers, call.record, resource=call.resource)
    answer = await attempts.owned(targets, state.limits, look, state.owners, take=take, described=tuple)
    answer.close()
    if found:
        raise found.pop()


async def note_batches(governor: Governor, call: Call, provider: str, row: Row, body: bytes) -> None:
    """What an answer says of batches."""
    if row.collection != "/batches" or not (seen := seen_in(codec.loads_tolerant(body))):
        return
    if isinstance(call.charge, BatchCharge):
        call.charge.created(seen[0])
    else:
        await governor.batches.note(provider, seen)


async def output_meter(
    state: AppState, call: Call, targets: attempts.Targets, row: Row, answer: Response, length: int | None
) -> OutputMeter | None:
    """What counts the output of a batch while its file is fetched; None for other files.

    `length` is that of the file in bytes, if it is known. Raises ProxyError where nobody can tell whose
    output it is.
    """
    governor = state.governor
    if governor is None or row.path != _CONTENT or call.resource is None or answer.status != OK:
        return None
    file, provider = call.resource.rpartition("/")[2], targets[0].provider
    batch = await governor.batches.of_output(provider.name, file)
    if batch is None:
        batch = await _looked_for(state, governor.batches, call, targets, file)
    if batch is None:
        return None
    output = BatchOutput(batch.entry.model, batch.reserved, partial(state.batch_prices, provider))
    return OutputMeter(governor.batches, batch, output, length)


async def _looked_for(
    state: AppState, book: BatchBook, call: Call, targets: attempts.Targets, file: str
) -> OpenBatch | None:
    """The batch whose output is in `file`, as the provider says.

    A list of files names the output to clients that have never asked how their batch stands.
    """
    client, provider = call.record.client, targets[0].provider.name
    waiting = await book.waiting(provider, client.rules.id or client.id)
    for batch in waiting[:MAX_LOOKS]:
        seen = await _seen(state, call, targets, batch)
        await book.note(provider, seen)
        if any(each.output == file for each in seen):
            if not all(each.is_over for each in seen):
                raise InvalidRequest(f"The batch {batch} has not ended: retry when it has", param="id")
            return await book.of_output(provider, file)
    if len(waiting) > MAX_LOOKS:
        raise InvalidRequest(
            "This file may be the output of a batch: get the batch first, with GET /batches/<id>", param="id"
        )
    return None


async def _seen(state: AppState, call: Call, targets: attempts.Targets, batch: str) -> list[Seen]:
    path = resource_path("/batches/<id>", batch)
    if path is None:
        return []
    bodies: list[bytes] = []

    async def take(answer: Response) -> None:
        bodies.append(await answer.read_all())

    look = Call("GET", path, call.headers, call.record, resource=path)
    try:
        answer = await attempts.owned(targets, state.limits, look, state.owners, take=take, described=tuple)
    except ProxyError as exc:
        if exc.upstream_status == NOT_FOUND:
            return []
        raise
    answer.close()
    return seen_in(codec.loads_tolerant(bodies[-1]))


class OutputMeter(StreamFilter):
    """Passes an output file as it is, and settles its batch as soon as all of it has come.

    A client that has all bytes may leave before the end of the connection is noticed.
    """

    __slots__ = ("_batch", "_book", "_is_settled", "_left", "_output")

    def __init__(self, book: BatchBook, batch: OpenBatch, output: BatchOutput, length: int | None) -> None:
        self._book = book
        self._batch = batch
        self._output = output
        self._left = length
        self._is_settled = False

    @override
    def feed(self, data: bytes) -> bytes:
        self._output.feed(data)
        if self._left is not None:
            self._left -= len(data)
            if self._left == 0:
                self._settle()
        return data

    @override
    def end(self) -> bytes:
        self._settle()
        return b""

    def _settle(self) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._book.settle(self._batch, self._output.settlement(int(1000 * time.time())))
