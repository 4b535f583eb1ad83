"""What a status and a report mean. The vendors' own answers are in `test_error_parser`."""

from __future__ import annotations

import pytest

from sanic_proxy import errors
from sanic_proxy.upstream.error_body import Report
from sanic_proxy.upstream.error_kinds import CLIENT_STATUSES, classify


def kind_of(
    status: int | None, words: str = "", *codes: str, named: int | None = None
) -> type[errors.ProxyError]:
    return classify(status, Report(message=words, words=words, codes=codes, status=named))[0]


@pytest.mark.parametrize("status", range(400, 500))
def test_a_status_that_is_not_surely_the_clients_is_the_targets(status: int) -> None:
    kind = kind_of(status)
    assert issubclass(kind, errors.ClientError) == (status in CLIENT_STATUSES)
    assert status in CLIENT_STATUSES or issubclass(kind, errors.UpstreamError | errors.RateLimited)


@pytest.mark.parametrize("status", [408, 423, 424, 425, 498, 499])
def test_a_passing_state_of_the_target_may_be_repeated(status: int) -> None:
    kind = kind_of(status)
    assert kind is errors.UpstreamBusy
    assert kind.retryable


@pytest.mark.parametrize(
    ("spelling", "kind"),
    [
        ("rate_limit_exceeded", errors.RateLimited),
        ("RateLimitExceeded", errors.RateLimited),
        ("RATE-LIMIT-EXCEEDED", errors.RateLimited),
        ("Content.Policy.Violation", errors.ContentFiltered),
        ("MODEL_NOT_FOUND", errors.UpstreamRejected),
    ],
)
@pytest.mark.parametrize("status", [None, 400, 404, 413, 429, 500])
def test_codes_are_read_in_any_spelling_and_before_the_status(
    status: int | None, spelling: str, kind: type[errors.ProxyError]
) -> None:
    assert kind_of(status, "", spelling) is kind


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        # Words count only with the statuses that they come with.
        (429, "maximum context length", errors.RateLimited),
        (401, "your input was flagged", errors.UpstreamAuthFailed),
        (400, "the model 'x' does not exist", errors.UpstreamRejected),
        (500, "the model 'x' does not exist", errors.UpstreamError),
        (400, "model: the file does not exist", errors.UpstreamRefusedRequest),
        (404, "No such batch: b", errors.UpstreamRefusedRequest),
        (404, "File f not found", errors.UpstreamRefusedRequest),
        (404, "Item with id 'rs_1' not found.", errors.UpstreamRefusedRequest),
        (404, "nope", errors.UpstreamRejected),
        (401, "Incorrect API key for this endpoint", errors.UpstreamAuthFailed),
        (401, "invalid subscription key or wrong API endpoint", errors.UpstreamAuthFailed),
        (401, "Your IP is not allowed", errors.UpstreamAccessDenied),
        (402, "no", errors.InsufficientQuota),
        (402, "can only afford 400", errors.UpstreamRejected),
        (403, "You have insufficient credits", errors.InsufficientQuota),
        (400, "Too much: rate limit reached", errors.UpstreamRefusedRequest),
        (400, "Rate limit reached for m", errors.RateLimited),
    ],
)
def test_words_decide_where_codes_do_not(status: int, words: str, kind: type[errors.ProxyError]) -> None:
    assert kind_of(status, words) is kind


@pytest.mark.parametrize(
    ("status", "named", "kind"),
    [
        (500, 429, errors.RateLimited),
        (502, 503, errors.UpstreamUnavailable),
        (400, 529, errors.UpstreamUnavailable),
        (500, 400, errors.UpstreamError),
        (404, 429, errors.UpstreamRejected),
        (None, 429, errors.RateLimited),
        (None, 400, errors.UpstreamRefusedRequest),
        (None, None, errors.UpstreamReportedError),
    ],
)
def test_an_inner_status_counts_where_the_outer_is_generic(
    status: int | None, named: int | None, kind: type[errors.ProxyError]
) -> None:
    assert kind_of(status, named=named) is kind
