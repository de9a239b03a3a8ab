"""The body of `/v1/events` -> events."""

from __future__ import annotations

import pyarrow as pa

from embtables.serving import wire
from embtables.serving.events.events import batch_of
from embtables.serving.http.exchange.arrow import read_rows
from embtables.serving.http.exchange.call import Call
from embtables.serving.http.exchange.parse import Caps, check_values, decode
from embtables.serving.refusals import Refusal


def events_of(call: Call, caps: Caps) -> pa.RecordBatch:
    """Events (n,) of a JSON body or an Arrow stream.

    Raises:
        Refusal: 400, 415, 422 with the field.
    """
    if call.content_type == wire.ARROW:
        table = read_rows(call.body, caps).combine_chunks()
        call.size = table.num_rows
        return table.to_batches()[0]
    if call.content_type != wire.JSON:
        raise Refusal(415, f"a body is {wire.JSON} or {wire.ARROW}, received Content-Type {call.content_type[:60]}")
    given = decode(wire.EventsRequest, call.body).events
    call.size = len(given)
    if not given:
        raise Refusal(422, "has no entry: there is nothing to append", "events")
    if len(given) > caps.candidates:
        raise Refusal(422, f"has {len(given):,} entries, at most {caps.candidates:,} are taken: send parts", "events")
    for place, event in enumerate(given):
        check_values(event, f"events.{place}", caps)
    return batch_of(given)
