"""The ingestor's and completer's decisions on moto: whole batches, loss, duplicates, cancels, time to live, bounds."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from backend_rig import BUCKET, PEER, STRANGER, Sender, published, rig, states, throttled

from backend.inflight import PATH_TOMBSTONE_S, TOMBSTONE_S
from raptor_s3.codec import ObjectDecoder, ObjectTransmissionInformation
from raptor_s3.wire.datagram import FLAG_PUT_HEADER
from raptor_s3.wire.transfer_state import StateType

BODY = bytes(range(256)) * 20


@pytest.fixture
def backend():
    with rig() as made:
        yield made


@pytest.fixture
def unguarded():
    with rig(guard=False) as made:
        yield made


def only(answers):
    assert len(answers) == 1
    return answers[0].state


def singular_set(sender: Sender) -> list[int]:
    """K ESIs that do not determine the block; about one set in a hundred is such."""
    random = Random(1)
    while True:
        esis = random.sample(range(sender.symbols, 3000), sender.symbols)
        decoder = ObjectDecoder(sender.oti)
        for esi in esis:
            decoder.add(0, esi, bytes(sender.oti.symbol_size))
        if decoder.missing(0):
            return esis


class TestWholeBatch:
    def test_is_written_by_one_put_and_confirmed_with_s3s_answer(self, backend):
        sender = Sender(BODY, fields={"ContentType": "text/x", "Metadata": {"a": "b"}})
        state = only(backend.deliver(sender.source()))
        assert state.type is StateType.COMPLETE
        assert state.fields["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'
        head = backend.s3.head_object(Bucket=BUCKET, Key="in/file")
        assert (head["ContentType"], head["Metadata"]) == ("text/x", {"a": "b"})
        assert backend.object() == BODY
        assert backend.called("s3") == ["PutObject"]
        assert backend.called("sqs") == []

    def test_every_ungated_parameter_is_carried(self, backend):
        fields = {
            "CacheControl": "no-cache",
            "ContentDisposition": "attachment",
            "ContentEncoding": "x-none",
            "ContentLanguage": "de",
            "ContentType": "text/x",
            "Expires": "Thu, 01 Dec 2033 16:00:00 GMT",
            "Metadata": {"a": "b"},
            "ServerSideEncryption": "AES256",
            "StorageClass": "STANDARD_IA",
            "WebsiteRedirectLocation": "/x",
        }
        assert only(backend.deliver(Sender(BODY, fields=fields).source())).type is StateType.COMPLETE
        head = backend.s3.head_object(Bucket=BUCKET, Key="in/file")
        for name in fields.keys() - {"Expires"}:
            assert head[name] == fields[name], name
        assert head["ExpiresString"] == fields["Expires"]

    def test_unguarded_needs_no_dynamodb(self, unguarded):
        assert only(unguarded.deliver(Sender(BODY).source())).type is StateType.COMPLETE
        assert unguarded.called("dynamodb") == []
        assert unguarded.called("sqs") == []

    def test_lost_source_symbols_are_repaired_from_the_batch(self, backend):
        sender = Sender(BODY)
        symbols = [sender.datagram(esi) for esi in (1, 2, *range(sender.symbols, sender.symbols + sender.symbols))]
        assert only(backend.deliver(symbols)).type is StateType.COMPLETE
        assert backend.object() == BODY

    @pytest.mark.parametrize("body", [b"", b"x", bytes(1_000_000)])
    def test_every_size(self, backend, body):
        assert only(backend.deliver(Sender(body).source())).type is StateType.COMPLETE
        assert backend.object() == body

    def test_two_transfers_of_one_event_do_not_mix(self, backend):
        first, second = Sender(BODY, 1, key="in/a"), Sender(BODY[::-1], 2, key="in/b")
        mixed = [each for pair in zip(first.source(), second.source(), strict=True) for each in pair]
        assert {state.type for state in states(backend.deliver(mixed))} == {StateType.COMPLETE}
        assert (backend.object("in/a"), backend.object("in/b")) == (BODY, BODY[::-1])

    def test_a_second_delivery_answers_again_and_writes_nothing(self, backend):
        sender = Sender(BODY)
        first = only(backend.deliver(sender.source()))
        newer = Sender(b"newer", 2)
        backend.deliver(newer.source())
        backend.calls.clear()
        assert only(backend.deliver(sender.source())).fields == first.fields
        assert backend.called("s3") == []
        assert backend.object() == b"newer"

    def test_late_repair_symbols_of_a_finished_put_are_answered_from_the_tombstone(self, backend):
        sender = Sender(b"small")
        first = only(backend.deliver(sender.source()))
        backend.deliver(Sender(b"newer", 2).source())
        assert only(backend.deliver([sender.datagram(7)])).fields == first.fields
        assert backend.object() == b"newer"

    def test_the_same_transfer_id_of_another_peer_is_another_transfer(self):
        policy = {"peers": [], "everyone": {"allow": [{"bucket": BUCKET}]}}
        with rig(policy) as backend:
            mine = Sender(BODY, key="mine")
            theirs = Sender(BODY[::-1], key="theirs")
            backend.deliver([*mine.source()[:2]])
            assert only(backend.deliver(theirs.source(), peer=STRANGER)).type is StateType.COMPLETE
            assert only(backend.deliver(mine.source()[:1])).received == 2


class TestLoss:
    def test_symbols_are_stored_counted_and_completed(self, backend):
        sender = Sender(BODY)
        k = sender.symbols
        state = only(backend.deliver([sender.datagram(esi) for esi in range(k - 1)]))
        assert (state.type, state.received) == (StateType.PACKETS, k - 1)
        assert state.fields["Esi"] == k - 2
        state = only(backend.deliver([sender.datagram(k + 3)]))
        assert (state.type, state.sbn) == (StateType.ENOUGH_PACKETS, 0)
        assert backend.object() is None
        backend.calls.clear()
        assert only(backend.complete()).type is StateType.COMPLETE
        assert backend.object() == BODY
        assert backend.called("s3") == ["PutObject"]

    def test_duplicates_are_no_progress(self, backend):
        sender = Sender(BODY)
        for _ in range(5):
            assert only(backend.deliver([sender.datagram(0), sender.datagram(0)])).received == 1
        assert backend.complete() == []

    def test_symbols_of_several_blocks(self, backend):
        body = bytes(range(256)) * 6000
        sender = Sender(body)
        assert sender.oti.source_blocks == 3
        datagrams = sender.source()
        for start in range(0, len(datagrams), 400):
            backend.deliver(datagrams[start : start + 400])
        backend.calls.clear()
        assert only(backend.complete()).type is StateType.COMPLETE
        assert backend.object() == body
        assert backend.called("s3") == ["PutObject"]

    def test_a_singular_set_asks_for_more(self, backend):
        sender = Sender(BODY)
        singular = singular_set(sender)
        backend.deliver([sender.datagram(esi) for esi in singular[1:]])
        backend.deliver([sender.datagram(singular[0])])
        state = only(backend.complete())
        assert (state.type, state.received) == (StateType.PACKETS, sender.symbols)
        more = [sender.datagram(esi) for esi in range(5000, 5004)]
        assert only(backend.deliver(more)).type is StateType.ENOUGH_PACKETS
        assert only(backend.complete()).type is StateType.COMPLETE
        assert backend.object() == BODY

    def test_a_singular_batch_is_stored(self, backend):
        sender = Sender(BODY)
        answer = only(backend.deliver([sender.datagram(esi) for esi in singular_set(sender)]))
        assert answer.type is StateType.ENOUGH_PACKETS
        assert only(backend.complete()).received == sender.symbols

    def test_a_crash_between_storing_and_counting_loses_nothing(self, backend):
        sender = Sender(BODY)
        symbols = [sender.datagram(esi) for esi in range(sender.symbols - 1)]
        inflight = backend.runtime.ingestion._inflight
        real, inflight._update = inflight._update, None
        with pytest.raises(TypeError):
            backend.deliver(symbols)
        inflight._update = real
        assert only(backend.deliver(symbols)).received == len(symbols)
        backend.deliver([sender.datagram(99)])
        assert only(backend.complete()).type is StateType.COMPLETE
        assert backend.object() == BODY

    def test_the_completion_message_twice_writes_once(self, backend):
        sender = Sender(BODY)
        backend.deliver(sender.source()[:-1])
        backend.deliver(sender.source()[-1:])
        message = backend.sqs.receive_message(QueueUrl=backend.completion_url)["Messages"][0]["Body"]
        from backend.completion import parse_completion

        log = backend.fail_s3([])
        answers = [backend.runtime.completion.complete(parse_completion(message), backend.now + 9) for _ in range(3)]
        assert log == ["in/file"]
        assert [only(each) for each in answers] == [only(answers[0])] * 3

    def test_a_transfer_that_the_table_forgot_is_no_error(self, backend):
        sender = Sender(BODY)
        backend.deliver(sender.source()[:-1])
        backend.deliver(sender.source()[-1:])
        for item in backend.dynamodb.scan(TableName="inflight")["Items"]:
            backend.dynamodb.delete_item(TableName="inflight", Key={"PK": item["PK"], "SK": item["SK"]})
        assert backend.complete() == []


class TestCancel:
    def test_of_an_unknown_transfer_is_promised_and_kept(self, backend):
        sender = Sender(BODY)
        assert only(backend.deliver([sender.cancel()])).type is StateType.CANCELLED
        assert only(backend.deliver(sender.source())).type is StateType.CANCELLED
        assert backend.object() is None

    def test_of_a_collecting_transfer(self, backend):
        sender = Sender(BODY)
        backend.deliver(sender.source()[:-1])
        backend.deliver(sender.source()[-1:])
        assert only(backend.deliver([sender.cancel()])).type is StateType.CANCELLED
        assert only(backend.complete()).type is StateType.CANCELLED
        assert backend.object() is None

    def test_of_a_written_put_answers_that_it_is_written(self, backend):
        sender = Sender(BODY)
        written = only(backend.deliver(sender.source()))
        assert only(backend.deliver([sender.cancel()])).fields == written.fields

    def test_in_one_event_with_the_symbols_wins(self, backend):
        sender = Sender(BODY)
        assert only(backend.deliver([*sender.source(), sender.cancel()])).type is StateType.CANCELLED
        assert backend.object() is None

    def test_during_a_write_gets_no_promise(self, backend):
        sender = Sender(BODY)
        answers = []

        class Interrupted(Exception):
            pass

        def cancel_arrives(real, **parameters):
            answers.append(backend.deliver([sender.cancel()]))
            raise Interrupted

        backend.replace_s3("put_object", cancel_arrives)
        with pytest.raises(Interrupted):  # the function dies: nobody knows whether S3 has the object
            backend.deliver(sender.source())
        backend.now += 3600
        answers.append(backend.deliver([sender.cancel()]))
        assert answers == [[], []]

    def test_unguarded_gives_no_promise_that_it_can_not_keep(self, unguarded):
        sender = Sender(BODY)
        assert unguarded.deliver([sender.cancel()]) == []
        assert unguarded.deliver([sender.cancel()]) == []
        assert unguarded.deliver(sender.source()[:1]) == []

    def test_of_a_published_transfer_is_kept_but_not_answered(self, backend):
        sender = published("a/b", BODY)
        assert backend.deliver([sender.cancel()]) == []
        backend.deliver(sender.source())
        assert backend.object("in/published/a/b") is None


def assert_expired(state, guard):
    """Nothing was written; unguarded, nobody can know that."""
    if guard:
        assert state.type is StateType.CANCELLED
    else:
        assert (state.type, state.fields["Code"]) == (StateType.FAILED, "RequestExpired")


class TestTimeToLive:
    @pytest.mark.parametrize("guard", [True, False])
    def test_past_it_nothing_is_written(self, guard):
        with rig(guard=guard) as backend:
            sender = Sender(BODY, ttl_ms=5000)
            datagrams = sender.source()
            received_at = backend.now
            backend.now += 5.0
            state = only(backend.deliver(datagrams, received_at=received_at))
            assert_expired(state, guard)
            assert backend.object() is None

    def test_in_its_last_moment_nothing_is_begun(self, backend):
        """S3 may take its time, and the sender does not wait for it."""
        received_at = backend.now
        backend.now += 4.6
        assert only(backend.deliver(Sender(BODY).source(), received_at=received_at)).type is not StateType.COMPLETE
        assert backend.object() is None

    def test_just_before_it_is_written(self, backend):
        received_at = backend.now
        backend.now += 4.4
        assert only(backend.deliver(Sender(BODY).source(), received_at=received_at)).type is StateType.COMPLETE

    def test_runs_from_the_first_datagram_of_several_events(self, backend):
        sender = Sender(BODY)
        backend.deliver(sender.source()[:-1])
        backend.now += 4
        backend.deliver(sender.source()[-1:])
        backend.now += 1.5
        state = only(backend.complete())
        assert state.type is StateType.CANCELLED
        assert backend.object() is None

    def test_a_throttled_write_is_not_attempted_past_it(self, backend):
        log = backend.fail_s3([throttled()] * 1000)
        with pytest.raises(Exception, match="SlowDown"):
            backend.deliver(Sender(BODY).source())
        assert 3 < len(log) < 100
        assert backend.now < 1_800_000_000 + 5

    def test_tombstones_outlive_queue_and_time_to_live(self, backend):
        backend.deliver(Sender(BODY).source())
        item = backend.dynamodb.scan(TableName="inflight")["Items"][0]
        assert int(item["expires"]["N"]) - backend.now >= 900 + 3600
        assert TOMBSTONE_S >= 900 + 3600


class TestBounds:
    def test_the_first_symbol_pins_the_shape(self, backend):
        sender = Sender(BODY)
        backend.deliver(sender.source()[:1])
        liar = Sender(BODY + BODY)
        liar.object_id = sender.object_id
        assert backend.deliver(liar.source()[:1]) == []
        assert only(backend.deliver(sender.source()[:1])).received == 1

    def test_a_peer_can_not_open_more_than_its_share(self):
        with rig(max_peer_bytes=100_000) as backend:
            seen = [only(backend.deliver(Sender(bytes(30_000), number).source()[:1])) for number in range(1, 6)]
            assert [state.type for state in seen] == [StateType.PACKETS] * 3 + [StateType.FAILED] * 2
            assert seen[-1].fields["Code"] == "SlowDown"
            # a finished transfer gives its share back
            assert only(backend.deliver([Sender(bytes(30_000), 1).cancel()])).type is StateType.CANCELLED
            assert only(backend.deliver(Sender(bytes(30_000), 9).source()[:1])).type is StateType.PACKETS

    def test_two_functions_that_open_one_transfer_at_once_agree(self, backend, monkeypatch):
        sender = Sender(BODY)
        backend.deliver([sender.datagram(0)])
        inflight = backend.runtime.ingestion._inflight
        real, seen = inflight.get, []

        def blind_once(key):
            seen.append(key)
            return None if len(seen) == 1 else real(key)

        monkeypatch.setattr(inflight, "get", blind_once)
        assert only(backend.deliver([sender.datagram(1)])).received == 2
        slots = backend.dynamodb.get_item(TableName="inflight", Key={"PK": {"S": f"P#{PEER}"}, "SK": {"S": "OPEN"}})
        assert len(slots["Item"]["slots"]["SS"]) == 1

    def test_symbols_beyond_any_need_are_not_kept(self, backend):
        sender = Sender(BODY)
        many = 2 * sender.symbols + 64
        inflight = backend.runtime.ingestion._inflight
        for esi in range(many + 20):
            backend.deliver([sender.datagram(esi)])
        from backend.transfers import TransferKey

        record = inflight.get(TransferKey(PEER, sender.object_id))
        assert len(list(inflight.symbols(record, 0))) == many


class TestPublishedClient:
    def test_is_stored_under_the_prefix_and_confirmed_without_json(self, backend):
        sender = published("20260501/a b.bin", BODY)
        state = only(backend.deliver(sender.source()))
        assert (state.type, state.fields) == (StateType.COMPLETE, None)
        assert backend.object("in/published/20260501/a b.bin") == BODY

    def test_its_repair_symbols_are_of_the_other_table(self, backend):
        sender = published("x", BODY)
        k = sender.symbols
        state = only(backend.deliver([sender.datagram(esi) for esi in range(2, k + 8)]))
        assert state.type is StateType.COMPLETE
        assert backend.object("in/published/x") == BODY

    def test_failures_are_silent(self, backend):
        backend.set_policy({"peers": [{"public_key": PEER, "legacy": False}]})
        assert backend.deliver(published("x", BODY).source()) == []

    @pytest.mark.parametrize("path", ["../x", "/x", "a/../../b"])
    def test_paths_stay_under_the_prefix(self, backend, path):
        assert backend.deliver(published(path, BODY).source()) == []
        assert backend.s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0

    def test_a_path_may_come_again(self, backend):
        backend.deliver(published("x", BODY).source())
        backend.now += PATH_TOMBSTONE_S + 1
        assert only(backend.deliver(published("x", BODY[::-1]).source())).type is StateType.COMPLETE
        assert backend.object("in/published/x") == BODY[::-1]

    def test_old_symbols_of_a_path_never_mix_with_new_ones(self, backend):
        backend.deliver(published("x", BODY).source()[:-1])
        backend.now += 1000
        newer = published("x", BODY[::-1])
        assert only(backend.deliver(newer.source()[-1:])).received == 1
        backend.deliver(newer.source()[:-1])
        assert only(backend.complete()).type is StateType.COMPLETE
        assert backend.object("in/published/x") == BODY[::-1]


@pytest.mark.parametrize(
    "oti",
    [
        ObjectTransmissionInformation(1 << 39, 65535, 255),
        ObjectTransmissionInformation(200 << 20, 1300, 255),
        ObjectTransmissionInformation(50_000, 1, 1),
        ObjectTransmissionInformation(4 << 20, 1024, 1),
    ],
)
def test_lying_headers_are_dropped_before_anything_is_stored(backend, oti):
    from raptor_s3.wire.datagram import Datagram, build_datagram

    datagram = build_datagram(Datagram("A" * 22, oti, FLAG_PUT_HEADER, 0, 0, bytes(oti.symbol_size)))
    assert backend.deliver([datagram]) == []
    assert backend.calls == []


class TestFirstFlight:
    """The time to live runs from the transfer's first datagram, also when a later flight alone holds the object."""

    @pytest.mark.parametrize("guard", [True, False])
    def test_a_whole_later_flight_does_not_begin_anew(self, guard):
        with rig(guard=guard) as backend:
            sender = Sender(BODY, ttl_ms=5000)
            backend.deliver([sender.datagram(1)])
            backend.now += 5.5
            later = [sender.datagram(esi) for esi in range(50, 50 + 2 * sender.symbols)]
            state = only(backend.deliver(later))
            assert_expired(state, guard)
            assert backend.object() is None

    def test_unguarded_later_flights_ask_the_table(self, unguarded):
        sender = Sender(BODY)
        later = [sender.datagram(esi) for esi in range(50, 50 + 2 * sender.symbols)]
        assert only(unguarded.deliver(later)).type is StateType.COMPLETE
        assert "UpdateItem" in unguarded.called("dynamodb")

    def test_a_fast_gateway_clock_lengthens_nothing(self, backend):
        sender = Sender(BODY, ttl_ms=5000)
        received_at = backend.now + 60
        backend.deliver(sender.source()[:-1], received_at=received_at)
        backend.now += 5.5
        backend.deliver(sender.source()[-1:], received_at=received_at)
        assert only(backend.complete()).type is StateType.CANCELLED

    def test_datagrams_older_than_any_time_to_live_cost_nothing(self, backend):
        assert backend.deliver(Sender(BODY).source(), received_at=backend.now - 3601) == []
        assert backend.calls == []


class TestReach:
    """What types 1 and 3 say of the link: the sender estimates its loss from it."""

    def test_without_loss_it_is_k_whatever_the_surplus(self, backend):
        sender = Sender(BODY)
        k = sender.symbols
        assert only(backend.deliver([sender.datagram(esi) for esi in range(k + 3)])).received == k

    def test_a_lost_symbol_moves_it_by_one(self, backend):
        sender = Sender(BODY)
        k = sender.symbols
        backend.deliver([sender.datagram(esi) for esi in range(1, k)])
        assert only(backend.deliver([sender.datagram(k), sender.datagram(k + 1)])).received == k + 1

    def test_published_clients_do_not_hear_of_it(self, backend):
        assert only(backend.deliver(published("x", BODY).source())).received == 0
