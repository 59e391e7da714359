"""The circuit breaker, and the journal beside it."""

import json
import os
import stat
import threading

import pytest

from raptor_s3.errors import ConfigError
from raptor_s3.routing.breaker import FIRST_COOLDOWN_S, LONGEST_COOLDOWN_S, Breaker
from raptor_s3.routing.config import RaptorConfig
from raptor_s3.routing.endpoint import LearnedRecord, breaker_for, journal_for
from raptor_s3.routing.journal import MAX_BYTES, Journal, PutRecord

KEY = "A" * 43 + "="


class Clock:
    def __init__(self, now=1_700_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


def settings(runtime_dir):
    return RaptorConfig.load({}, {}, {"endpoint": "wg://h:1", "server_key": KEY, "client_key": KEY, "runtime_dir": runtime_dir})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def record(tmp_path):
    config = settings(tmp_path / "run")
    return LearnedRecord(config, config.prepare_runtime_dir())


@pytest.fixture(params=["alone", "shared"])
def breaker(request, clock, record):
    return Breaker(record if request.param == "shared" else None, clock=clock)


class TestBreaker:
    def test_opens_at_the_first_failure_and_says_why(self, breaker, clock):
        assert breaker.admit(5) == ""
        breaker.failed("no handshake", clock.now)
        assert "no handshake" in breaker.admit(5)
        clock.now += FIRST_COOLDOWN_S - 1
        assert breaker.admit(5)

    def test_a_success_of_who_did_not_ask_closes_what_another_process_opened(self, record, clock):
        Breaker(record, clock=clock).failed("no handshake", clock.now)
        clock.now += 1
        Breaker(record, clock=clock).ended("", clock.now)
        assert Breaker(record, clock=clock).admit(5) == ""

    def test_then_one_put_tries(self, breaker, clock):
        breaker.failed("x", clock.now)
        clock.now += FIRST_COOLDOWN_S
        assert breaker.admit(5) == ""
        assert breaker.admit(5) != ""
        breaker.succeeded()
        assert breaker.admit(5) == ""

    def test_a_probe_that_never_returns_does_not_hold_it_for_ever(self, breaker, clock):
        breaker.failed("x", clock.now)
        clock.now += FIRST_COOLDOWN_S
        assert breaker.admit(5) == ""
        clock.now += 5.1
        assert breaker.admit(5) == ""

    def test_each_further_failure_doubles_the_wait_up_to_a_bound(self, breaker, clock):
        waits = []
        for _ in range(9):
            clock.now += 1
            breaker.failed("x", clock.now)
            waits.append(breaker.state.open_until - clock.now)
            clock.now = breaker.state.open_until
            assert breaker.admit(5) == ""
        assert waits[:3] == pytest.approx([FIRST_COOLDOWN_S, 2 * FIRST_COOLDOWN_S, 4 * FIRST_COOLDOWN_S])
        assert waits[-1] == pytest.approx(LONGEST_COOLDOWN_S)

    def test_puts_that_were_under_way_together_count_once(self, breaker, clock):
        started = clock.now
        clock.now += 5
        for _ in range(10):
            breaker.failed("x", started)
        assert breaker.state.failures == 1

    def test_one_that_fails_among_others_that_succeed_is_no_sign(self, breaker, clock):
        started = clock.now
        clock.now += 1
        breaker.succeeded()
        clock.now += 4
        breaker.failed("bad luck", started)
        assert breaker.admit(5) == ""
        breaker.failed("nothing since", clock.now)
        assert "nothing since" in breaker.admit(5)

    def test_a_clock_set_back_does_not_keep_it_open(self, breaker, clock):
        breaker.failed("x", clock.now)
        clock.now -= 10 * LONGEST_COOLDOWN_S
        assert breaker.admit(5) == ""

    def test_only_one_of_many_threads_tries(self, breaker, clock):
        breaker.failed("x", clock.now)
        clock.now += FIRST_COOLDOWN_S
        admitted = []
        threads = [threading.Thread(target=lambda: admitted.append(breaker.admit(5) == "")) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(admitted) == 1


class TestShared:
    def test_other_processes_see_it_within_a_second(self, record, clock):
        one, two = Breaker(record, clock=clock), Breaker(record, clock=clock)
        assert two.admit(5) == ""
        one.failed("no route", clock.now)
        clock.now += 1
        assert "no route" in two.admit(5)
        two._store = None
        one.succeeded()
        clock.now += 1
        assert Breaker(record, clock=clock).admit(5) == ""

    def test_also_when_the_clock_has_been_set_back(self, record, clock):
        one, two, three = (Breaker(record, clock=clock) for _ in range(3))
        assert [breaker.admit(5) for breaker in (two, three)] == ["", ""]
        assert not two.is_open()
        clock.now -= 3600
        one.failed("no route", clock.now)
        clock.now += 1
        assert two.is_open()
        three.succeeded()
        clock.now += 1
        assert two.admit(5) == ""

    def test_puts_that_were_under_way_in_several_processes_count_once(self, record, clock):
        """One in each; some fail when the first failure's pause has passed, while another put tries again."""
        processes = [Breaker(record, clock=clock) for _ in range(8)]
        started = clock.now
        for breaker in processes:
            assert breaker.admit(5) == ""
        for breaker in processes[:4]:
            clock.now += 0.01
            breaker.failed("a blip", started)
        assert processes[3].state.failures == 1
        assert processes[3].state.open_until == pytest.approx(started + 0.01 + FIRST_COOLDOWN_S)
        clock.now += FIRST_COOLDOWN_S
        assert processes[0].admit(5) == ""
        for breaker in processes[4:]:
            breaker.failed("the same blip", started)
        clock.now += 1
        assert "trying again" in processes[7].admit(5)
        processes[0].failed("still", clock.now - 1)
        assert processes[7].state.open_until == pytest.approx(clock.now + 2 * FIRST_COOLDOWN_S)

    def test_a_put_that_could_not_know_of_a_failure_yet_is_not_a_further_one(self, record, clock):
        """Refused at once, in processes that looked just before the first of them."""
        processes = [Breaker(record, clock=clock) for _ in range(8)]
        for breaker in processes:
            assert breaker.admit(5) == ""
        for breaker in processes:
            clock.now += 0.1
            assert breaker is not processes[1] or breaker.admit(5) == ""
            breaker.failed("no handshake", clock.now)
        assert processes[0].state.failures == 1

    def test_a_failure_noted_while_this_one_waited_for_the_store_is_the_same(self, record, clock):
        class Busy:
            def load(self):
                return record.load()

            def update(self, change):
                clock.now += 2
                Breaker(record, clock=clock).failed("the first", started)
                record.update(change)

        started = clock.now
        Breaker(Busy(), clock=clock).failed("the second", started)
        state = Breaker(record, clock=clock).state
        assert (state.failures, state.reason) == (1, "the first")

    @pytest.mark.parametrize("opened_at", [1e12, float("nan"), float("-inf"), 0, None])
    def test_a_time_that_can_not_be_hides_no_failure(self, clock, opened_at):
        class Store:
            def __init__(self):
                self.state = {"failures": 1, "open_until": clock.now - 1, "reason": "x", "opened_at": opened_at}

            def load(self):
                return self.state

            def update(self, change):
                self.state = dict(change(self.state))

        breaker = Breaker(Store(), clock=clock)
        breaker.failed("another", clock.now - 1)
        assert breaker.admit(5).endswith("another")

    @pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"breaker": 5}', b'{"breaker": {"failures": "x"}}'])
    def test_a_damaged_record_is_a_closed_breaker(self, record, clock, content):
        Breaker(record, clock=clock).failed("x", clock.now)
        (file,) = [os.path.join(record.directory, name) for name in os.listdir(record.directory) if name.endswith(".json")]
        with open(file, "wb") as damaged:
            damaged.write(content)
        assert Breaker(record, clock=clock).admit(5) == ""

    def test_what_else_was_learned_stays(self, record, clock):
        record._store.update_learned(record.endpoint, {"rtt_s": 0.15})
        Breaker(record, clock=clock).failed("x", clock.now)
        assert record.learned()["rtt_s"] == 0.15

    def test_one_per_endpoint_and_process(self, tmp_path):
        config = settings(tmp_path / "run")
        assert breaker_for(config) is breaker_for(settings(tmp_path / "run"))
        assert breaker_for(config) is not breaker_for(settings(tmp_path / "elsewhere"))

    def test_a_directory_that_others_can_read_is_refused(self, tmp_path):
        (tmp_path / "run").mkdir(mode=0o755)
        with pytest.raises(ConfigError, match="0700"):
            breaker_for(settings(tmp_path / "run"))

    def test_a_directory_that_can_not_be_made_costs_memory_only(self):
        assert settings("/proc/nowhere/run").prepare_runtime_dir() is None
        assert breaker_for(settings("/proc/nowhere/run")).admit(5) == ""


class TestJournal:
    @pytest.fixture
    def directory(self, tmp_path):
        tmp_path.chmod(0o700)
        return tmp_path

    def test_round_trip(self, directory):
        journal = Journal(directory)
        journal.record(
            PutRecord(
                1.5, "b", "k/ü \n", size_bytes=10, route="https", reason="body too large", status=200, etag='"e"', rtt_s=0.1
            )
        )
        journal.record(PutRecord(2.5, "b", "k2", route="raptor", datagrams=12, lost=1, handshake=True))
        first, second = Journal(directory).read(), journal.read()
        assert [record.key for record in second] == ["k/ü \n", "k2"]
        assert second[1].datagrams == 12
        assert second[0].pid == os.getpid()
        assert len(first) == 1  # the second was still in the writer's memory
        assert journal.read(1)[0].key == "k2"

    def test_private_and_bounded(self, directory):
        journal = Journal(directory)
        for number in range(3000):
            journal.record(PutRecord(float(number), "b" * 60, "k" * 400))
            if number % 100 == 0:
                journal.flush()
        journal.flush()
        files = [path for path in directory.iterdir() if path.name.startswith("puts.jsonl")]
        assert sum(path.stat().st_size for path in files) < 3 * MAX_BYTES
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert [record.at for record in journal.read(50)] == [float(number) for number in range(2950, 3000)]

    def test_of_a_burst_the_latest_are_kept(self, directory):
        journal = Journal(directory)
        for number in range(5000):
            journal.record(PutRecord(float(number)))
        times = [record.at for record in journal.read(10_000)]
        assert times[-256:] == [float(number) for number in range(4744, 5000)]
        assert times == sorted(times)

    def test_nonsense_lines_are_skipped(self, directory):
        journal = Journal(directory)
        journal.record(PutRecord(1.0, "b", "k"))
        with (directory / "puts.jsonl").open("a") as file:
            file.write("half a li\n[1]\n" + json.dumps({"bucket": "no time"}) + "\n")
        assert [record.key for record in journal.read()] == ["k"]

    def test_a_journal_that_can_not_be_written_is_silent(self, tmp_path):
        journal = Journal(tmp_path / "missing")
        journal.record(PutRecord(1.0, "b", "k"))
        assert journal.read() == []

    def test_one_per_directory(self, tmp_path):
        config = settings(tmp_path / "run")
        assert journal_for(config) is journal_for(config)
        assert journal_for(RaptorConfig()) is None

    def test_a_link_is_not_followed(self, directory):
        (directory / "victim").write_text("")
        (directory / "puts.jsonl").symlink_to(directory / "victim")
        journal = Journal(directory)
        journal.record(PutRecord(1.0, "b", "k"))
        assert (directory / "victim").read_text() == ""


def test_a_failure_that_waited_for_anothers_to_be_written_is_the_same_one(clock):
    """Sixteen threads whose puts fail in the same moment."""
    breaker = Breaker(None, clock=clock)

    class SomebodyElseFirst:
        def __enter__(self):
            breaker._lock = threading.Lock()
            clock.now += 0.01
            breaker.failed("the first", started_at)

        def __exit__(self, *_):
            pass

    started_at = clock.now - 1
    breaker._lock = SomebodyElseFirst()
    breaker.failed("the second", started_at)
    assert breaker.state.failures == 1
    assert breaker.state.reason == "the first"
