"""The HTTP/2 connection of FCM and APNs, against a scripted server."""

import json
import socket
from collections.abc import Iterator

import pytest
from chat_push.http2 import MAX_STREAMS, Answer, Connect, Http2, NoAnswer, Request, Verdict
from h2.errors import ErrorCodes

from tests.http2_fakes import Action, Close, GoAway, Hang, Http2Server, Received, Reply, Reset


class Client:
    """A client, and the server that it talks to. `now` is its clock."""

    def __init__(self, server: Http2Server) -> None:
        self.server = server
        self.now = 1000.0
        self.connect: Connect = server.connect
        self.http2 = Http2("https://push.example", lambda timeout: self.connect(timeout), lambda: self.now)

    def send(self, count: int = 1, seconds: float = 5) -> list[Answer | NoAnswer]:
        requests = [Request(f"/{number}", [("authorization", "x")], b'{"n": %d}' % number) for number in range(count)]
        return self.http2.exchange(requests, lambda: seconds, _judge)

    @property
    def numbers(self) -> list[int]:
        """The requests that the server got, in order."""
        return [request.body["n"] for request in self.server.requests]


def _judge(answer: Answer) -> Verdict:
    verdicts: dict[int, Verdict] = {403: "stop", 503: "reconnect"}
    return verdicts.get(answer.status, "keep")


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    """The clients of a test. This fixture closes their connections; a function never does."""
    made: list[Client] = []
    yield made
    for client in made:
        client.http2.close()


@pytest.fixture
def client_of(clients: list[Client]) -> "ClientOf":
    return ClientOf(clients)


class ClientOf:
    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients

    def __call__(self, *script: Action, hold: int = 1, max_streams: int = 1000) -> Client:
        self._clients.append(Client(Http2Server(*script, hold=hold, max_streams=max_streams)))
        return self._clients[-1]


def statuses(results: list[Answer | NoAnswer]) -> list[int | str]:
    return [result.status if isinstance(result, Answer) else result.error for result in results]


class TestStreams:
    def test_each_request_gets_its_own_answer(self, client_of: ClientOf) -> None:
        client = client_of()
        client.server.default = lambda request: Reply(200, {"n": request.body["n"]}, {"x-n": str(request.body["n"])})
        answers = client.send(250)
        assert [json.loads(answer.body)["n"] for answer in answers if isinstance(answer, Answer)] == list(range(250))
        assert len(client.server.connections) == 1

    def test_the_first_request_on_a_connection_is_alone_and_the_others_are_sent_at_once(
        self, client_of: ClientOf
    ) -> None:
        """So a batch of 100 takes two round trips, and a wrong configuration is refused once."""
        client = client_of(hold=99)
        client.send(100)
        assert [request.open for request in client.server.requests] == [1, *range(1, 100)]
        client.server.hold = 100
        client.send(100)
        assert [request.open for request in client.server.requests][100:] == list(range(1, 101))

    def test_at_most_a_hundred_streams_are_open(self, client_of: ClientOf) -> None:
        client = client_of(hold=MAX_STREAMS)
        client.send(1 + 2 * MAX_STREAMS)
        assert max(request.open for request in client.server.requests) == MAX_STREAMS

    def test_a_server_may_allow_fewer_streams(self, client_of: ClientOf) -> None:
        client = client_of(hold=7, max_streams=7)
        client.send(1 + 7 * 5)
        assert max(request.open for request in client.server.requests) == 7

    def test_the_connection_is_kept_for_the_next_batch(self, client_of: ClientOf) -> None:
        client = client_of()
        client.send()
        client.now += 3600
        assert statuses(client.send()) == [200]
        assert len(client.server.connections) == 1

    def test_the_access_token_and_the_path_are_in_no_repr_and_no_log(
        self, client_of: ClientOf, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert repr(Request("/secret", [("authorization", "secret")], b"secret")) == "Request()"
        with caplog.at_level("DEBUG"):
            client_of().send()
        assert [record for record in caplog.records if record.name.startswith(("h2", "hpack", "hyperframe"))] == []


class TestRefusals:
    def test_after_a_stop_no_further_request_is_sent(self, client_of: ClientOf) -> None:
        client = client_of(Reply(403))
        assert statuses(client.send(50)) == [403, *["Stopped"] * 49]
        assert client.numbers == [0]
        assert statuses(client.send(3)) == [200] * 3

    def test_after_a_stop_the_next_batch_begins_with_one_request(self, client_of: ClientOf) -> None:
        client = client_of(Reply(), Reply(403), Reply(403))
        client.send()
        client.send()
        client.send(50)
        assert len(client.server.requests) == 3

    def test_an_answer_that_asks_for_another_connection_is_repeated_there(self, client_of: ClientOf) -> None:
        client = client_of(Reply(503))
        assert statuses(client.send(3)) == [200] * 3
        assert [request.connection for request in client.server.requests] == [1, 2, 2, 2]

    def test_an_answer_that_asks_for_another_connection_each_time_is_the_result(self, client_of: ClientOf) -> None:
        client = client_of(*[Reply(503)] * 9)
        assert statuses(client.send(2))[0] == 503
        assert len(client.server.connections) == 3


class TestGoAway:
    def test_requests_that_goaway_does_not_count_are_sent_on_another_connection(self, client_of: ClientOf) -> None:
        client = client_of(Reply(), GoAway())
        assert statuses(client.send(3)) == [200] * 3
        assert len(client.server.connections) == 2

    def test_goaway_before_the_first_request_was_handled_loses_nothing(self, client_of: ClientOf) -> None:
        """httpx reports an error for a last stream of 0."""
        assert statuses(client_of(GoAway()).send(3)) == [200] * 3

    def test_requests_that_goaway_counts_and_that_are_answered_keep_their_answers(self, client_of: ClientOf) -> None:
        client = client_of(Reply(), Reply(), Reply(), GoAway(replies_first=True), hold=9)
        client.server.hold = 9
        assert statuses(client.send(4)) == [200] * 4
        assert client.numbers == [0, 1, 2, 3, 3]

    def test_a_request_that_goaway_counts_and_that_is_not_answered_may_have_been_handled(
        self, client_of: ClientOf
    ) -> None:
        client = client_of(Reply(), GoAway(handled=True))
        [_, lost] = client.send(2)
        assert lost == NoAnswer("ConnectionLost", maybe_handled=True)
        assert client.numbers == [0, 1], "a second copy could sound twice"

    def test_a_kept_connection_that_sends_goaway_is_no_dead_socket(self, client_of: ClientOf) -> None:
        client = client_of(Reply(), GoAway(handled=True))
        client.send()
        assert client.send() == [NoAnswer("ConnectionLost", maybe_handled=True)]

    def test_a_server_that_sends_goaway_each_time_handles_nothing(self, client_of: ClientOf) -> None:
        client = client_of(*[GoAway("IdleTimeout")] * 9)
        assert client.send(1) == [NoAnswer("IdleTimeout", maybe_handled=False)]
        assert len(client.server.connections) == 3


class TestLostConnections:
    def test_a_connection_that_was_closed_while_the_function_was_frozen_is_replaced(self, client_of: ClientOf) -> None:
        client = client_of()
        client.send()
        client.server.drop_connections()
        for idle in (1, 3600):
            client.now += idle
            assert statuses(client.send(3)) == [200] * 3
            client.server.drop_connections()

    def test_an_idle_connection_that_does_not_answer_a_ping_is_replaced(self, client_of: ClientOf) -> None:
        client = client_of()
        client.send()
        client.server.answers_ping = False
        client.now += 3600

        def answer_again(request: Received) -> Action:
            raise AssertionError("nothing is sent on the dead connection")

        client.server.default, usual = answer_again, client.server.default

        def connect_again(timeout: float) -> socket.socket:
            client.server.answers_ping, client.server.default = True, usual
            return client.server.connect(timeout)

        client.connect = connect_again
        assert statuses(client.send(2)) == [200] * 2

    def test_a_new_connection_that_closes_may_have_handled_its_requests(self, client_of: ClientOf) -> None:
        client = client_of(Close())
        assert client.send(2)[0] == NoAnswer("ConnectionLost", maybe_handled=True)
        assert client.numbers[0] == 0
        assert client.numbers.count(0) == 1

    def test_a_kept_connection_that_answered_something_is_no_dead_socket(self, client_of: ClientOf) -> None:
        client = client_of(Reply(), Reply(), Close(), hold=1)
        client.send()
        results = client.send(2)
        assert statuses(results) == [200, "ConnectionLost"]

    def test_a_refused_connection_handles_nothing(self, client_of: ClientOf) -> None:
        client = client_of()
        client.server.connect_fault = ConnectionRefusedError()
        assert client.send(2) == [NoAnswer("ConnectionRefusedError", maybe_handled=False)] * 2

    @pytest.mark.parametrize(
        ("code", "expected"), [(ErrorCodes.REFUSED_STREAM, 200), (ErrorCodes.INTERNAL_ERROR, "StreamReset")]
    )
    def test_a_refused_stream_is_repeated_and_any_other_reset_is_not(
        self, client_of: ClientOf, code: ErrorCodes, expected: int | str
    ) -> None:
        assert statuses(client_of(Reset(code)).send(1)) == [expected]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[" * 200_000])
def test_a_body_that_is_no_json_object_is_empty(body: bytes) -> None:
    assert Answer(200, {}, body).json() == {}


class TestTime:
    def test_a_request_without_an_answer_does_not_affect_the_others(self, client_of: ClientOf) -> None:
        client = client_of(Reply(), Hang())
        results = client.send(5, seconds=2)
        assert statuses(results) == [200, "ReadTimeout", 200, 200, 200]
        assert results[1] == NoAnswer("ReadTimeout", maybe_handled=True)

    def test_without_time_left_nothing_is_sent(self, client_of: ClientOf) -> None:
        client = client_of()
        assert client.send(2, seconds=0) == [NoAnswer("OutOfTime", maybe_handled=False, attempted=False)] * 2
        assert client.server.connections == []

    def test_what_was_not_sent_when_the_time_ends_was_not_attempted(self, client_of: ClientOf) -> None:
        results = client_of(Hang()).send(3, seconds=1)
        assert results[0] == NoAnswer("ReadTimeout", maybe_handled=True)
        assert results[1:] == [NoAnswer("OutOfTime", maybe_handled=False, attempted=False)] * 2
