"""The catalogue of failures: what can go wrong, and who deals with it.

A row is shown by the tests that carry its number (`@pytest.mark.row(8)`); one that no test shows has an
owner: nginx or the operator for what is theirs, "later" for what belongs to a room that is not built yet.
`pytest --catalogue` prints the table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One failure. `owner` is who deals with it where no test does, or who deals with it too."""

    number: int
    title: str
    owner: str = ""


_LIMITS = "later: money and limits"

ROWS = (
    # The provider
    Row(1, "nobody listens at its address"),
    Row(2, "a connect that is neither taken nor refused"),
    Row(3, "its name is unknown, or resolves slowly"),
    Row(4, "a certificate that is wrong, or no TLS at all"),
    Row(5, "silence instead of an answer"),
    Row(6, "silence behind the head, or in the middle"),
    Row(7, "slow, but moving: that is no failure"),
    Row(8, "a reset in the middle"),
    Row(9, "a clean end before the answer is complete"),
    Row(10, "a finish reason, and no [DONE]"),
    Row(11, "more after [DONE]"),
    Row(12, "frames cut anywhere by the network"),
    Row(13, "frames spelled differently"),
    Row(14, "a frame without end"),
    Row(15, "a frame that is not UTF-8"),
    Row(16, "a frame that is not JSON"),
    Row(17, "JSON that few can hold: half a surrogate, large numbers"),
    Row(18, "chunks without choices or with none"),
    Row(19, "an error inside a stream"),
    Row(20, "an error with status 200"),
    Row(21, "a whole answer instead of a stream"),
    Row(22, "a stream instead of a whole answer"),
    Row(23, "a page, or nothing, with status 200"),
    Row(24, "a refusal in another shape"),
    Row(25, "our key is refused"),
    Row(26, "an unknown model"),
    Row(27, "a wait asked for in any spelling"),
    Row(28, "a failure that a repeat mends"),
    Row(29, "a failure that no repeat mends"),
    Row(30, "clients that repeat what is hopeless"),
    Row(31, "compression that nobody asked for, bombs included"),
    Row(32, "a redirect"),
    Row(33, "HTTP that is none, or too much of it"),
    Row(34, "an answer before the request is sent"),
    Row(35, "an idle connection that is dead"),
    Row(36, "faster than the client"),
    Row(37, "tool calls in odd deltas"),
    Row(38, "usage that is missing or elsewhere"),
    # The client
    Row(39, "leaves before the first byte"),
    Row(40, "leaves in the middle"),
    Row(41, "closes its half of the connection"),
    Row(42, "reads slowly or not at all"),
    Row(43, "sends slowly or not at all", "nginx, where there are many"),
    Row(44, "sends too much"),
    Row(45, "sends no JSON object"),
    Row(46, "sends a key twice"),
    Row(47, "sends numbers that are none"),
    Row(48, "sends numbers past 64 bits"),
    Row(49, "sends what is dear to parse"),
    Row(50, "sends odd Unicode"),
    Row(51, "sends another type, charset or encoding"),
    Row(52, "sends fields of another type"),
    Row(53, "sends fields that nobody knows"),
    Row(54, "asks for a model whose name is an attack"),
    Row(55, "has no valid key, or two"),
    Row(56, "smuggles a second request"),
    Row(57, "plays tricks with host, path and forwarding headers"),
    Row(58, "abuses headers that end at each hop"),
    Row(59, "takes the wrong route or method"),
    Row(60, "exceeds its rate or quota", _LIMITS),
    # Ourselves
    Row(61, "a bug behind the status line"),
    Row(62, "a worker is killed"),
    Row(63, "the main process or its manager is killed"),
    Row(64, "told to stop under load"),
    Row(65, "the time to stop is over"),
    Row(66, "reloaded with bad settings"),
    Row(67, "no descriptors left"),
    Row(68, "no disk left", "the operator, for logs"),
    Row(69, "no memory left", "the operator: a limit per service"),
    Row(70, "the event loop is blocked"),
    Row(71, "the clock is set"),
    Row(72, "a store is down", "later: money and limits"),
    Row(73, "nginx reloads, or its workers end"),
    Row(74, "nginx waits for less than a pause"),
    Row(75, "keys are changed while it runs"),
    Row(76, "secrets in logs, forged log lines"),
    Row(77, "hours of mixed traffic and faults", "scripts/soak"),
)
