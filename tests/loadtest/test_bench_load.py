"""What the load clients are given, and what is read from them."""

from __future__ import annotations

import json

import pytest

from loadtest.bench.load import Endpoint, LoadError, parsed_report


def test_a_request_is_of_the_size_the_rows_name() -> None:
    assert 200 <= len(Endpoint(1).body(is_stream=False)) <= 300


def test_a_large_request_is_of_exactly_its_size_and_still_json() -> None:
    body = Endpoint(1).body(is_stream=False, size_bytes=2**20)
    assert len(body) == 2**20
    assert json.loads(body)["model"] == "bench-model"


def test_a_stream_is_requested_with_usage() -> None:
    fields = json.loads(Endpoint(1).body(is_stream=True))
    assert fields["stream"] is True
    assert fields["stream_options"] == {"include_usage": True}


def test_a_gateways_own_headers_replace_the_usual_ones() -> None:
    headers = Endpoint(1, headers=(("Authorization", "Bearer other"),)).all_headers()
    assert headers["Authorization"] == "Bearer other"


def test_a_request_as_bytes_has_head_length_and_body() -> None:
    head, _, body = Endpoint(9).request(b"{}").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:9\r\n")
    assert b"Content-Length: 2" in head
    assert body == b"{}"


def test_the_report_is_the_last_line_of_json() -> None:
    text = 'Running 1s test\n{"requests":0}\n{"requests":12,"p50_ms":0.5}\n'
    assert parsed_report(text, "") == {"requests": 12.0, "p50_ms": 0.5}


def test_lost_requests_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed_report('{"streams":3,"lost":1,"first_error":"closed"}', "")["lost"] == 1
    assert "closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "error_output", "message"),
    [
        ("", "unable to connect", "unable to connect"),
        ('{"requests":0,"errors":9}', "", "no answer at all"),
        ('{"streams":0,"lost":9,"first_error":"status 500"}', "", "status 500"),
    ],
)
def test_a_client_that_measured_nothing_has_failed(output: str, error_output: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        parsed_report(output, error_output)
