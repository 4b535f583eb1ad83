"""The catalogue of failures, each with the tests or the owner that handle it.

A row is shown by the tests that carry its number (`@pytest.mark.row(8)`); one without a test has an
owner: nginx, the operator, or "later" for a feature that does not exist yet.
`pytest --catalogue` prints the table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One failure. `owner` handles it where no test does, or in addition to the proxy."""

    number: int
    title: str
    owner: str = ""


ROWS = (
    # The provider
    Row(1, "connection refused"),
    Row(2, "a connect that times out"),
    Row(3, "its name is unknown, or resolves slowly"),
    Row(4, "a wrong certificate, or no TLS at all"),
    Row(5, "no answer"),
    Row(6, "a stall behind the head, or in the middle"),
    Row(7, "slow, but making progress: no failure"),
    Row(8, "a reset in the middle"),
    Row(9, "a clean end before the answer is complete"),
    Row(10, "a finish reason, and no [DONE]"),
    Row(11, "more data after [DONE]"),
    Row(12, "frames split anywhere by the network"),
    Row(13, "frames in other valid SSE syntax"),
    Row(14, "a frame without end"),
    Row(15, "a frame that is not UTF-8"),
    Row(16, "a frame that is not JSON"),
    Row(17, "JSON that parsers reject: lone surrogates, large numbers"),
    Row(18, "chunks without `choices`, or with an empty list"),
    Row(19, "an error inside a stream"),
    Row(20, "an error with status 200"),
    Row(21, "a whole answer instead of a stream"),
    Row(22, "a stream instead of a whole answer"),
    Row(23, "an HTML page, or an empty body, with status 200"),
    Row(24, "an error in another shape"),
    Row(25, "the proxy's key is rejected"),
    Row(26, "an unknown model"),
    Row(27, "a retry delay in any notation"),
    Row(28, "a failure that a retry resolves"),
    Row(29, "a failure that no retry resolves"),
    Row(30, "clients that retry permanent failures"),
    Row(31, "unrequested compression, bombs included"),
    Row(32, "a redirect"),
    Row(33, "invalid or oversized HTTP"),
    Row(34, "an answer before the request is sent"),
    Row(35, "a dead idle connection"),
    Row(36, "a provider faster than the client"),
    Row(37, "tool calls in incomplete deltas"),
    Row(38, "usage that is missing or elsewhere"),
    # The client
    Row(39, "disconnects before the first byte"),
    Row(40, "disconnects in the middle"),
    Row(41, "closes its half of the connection"),
    Row(42, "reads slowly or not at all"),
    Row(43, "sends slowly or not at all", "nginx, where there are many"),
    Row(44, "sends too much"),
    Row(45, "sends no JSON object"),
    Row(46, "sends a key twice"),
    Row(47, "sends invalid numbers"),
    Row(48, "sends numbers past 64 bits"),
    Row(49, "sends JSON that is expensive to parse"),
    Row(50, "sends invalid Unicode"),
    Row(51, "sends another type, charset or encoding"),
    Row(52, "sends fields of another type"),
    Row(53, "sends unknown fields"),
    Row(54, "requests a model whose name is an attack"),
    Row(55, "has no valid key, or two"),
    Row(56, "smuggles a second request"),
    Row(57, "forges host, path and forwarding headers"),
    Row(58, "abuses hop-by-hop headers"),
    Row(59, "uses the wrong route or method"),
    Row(60, "exceeds its rate or quota"),
    # Ourselves
    Row(61, "a bug after the status line"),
    Row(62, "a worker is killed"),
    Row(63, "the main process or its manager is killed"),
    Row(64, "stopped under load"),
    Row(65, "the drain time is over"),
    Row(66, "reloaded with bad settings"),
    Row(67, "no descriptors left"),
    Row(68, "no disk left", "the operator, for logs"),
    Row(69, "no memory left", "the operator: a limit per service"),
    Row(70, "the event loop is blocked"),
    Row(71, "the system clock jumps"),
    Row(72, "a store is down"),
    Row(73, "nginx reloads, or its workers end"),
    Row(74, "nginx's timeout is shorter than a pause"),
    Row(75, "keys are changed while it runs"),
    Row(76, "secrets in logs, forged log lines"),
    Row(77, "hours of mixed traffic and faults", "scripts/soak"),
    # The rest of an answer
    Row(78, "another target brings another text than was sent"),
    Row(79, "the client gives up before its provider answers"),
    Row(80, "a process is killed that keeps a directory in memory"),
    Row(81, "a response is too large to be stored"),
    # Memory that workers share
    Row(82, "a process dies or stops while it holds the lock"),
    Row(83, "its file is of an earlier boot, of another version, or cannot be used"),
    Row(84, "its tables are full"),
    # Traces
    Row(85, "the receiver of traces hangs, is full or is gone"),
)
