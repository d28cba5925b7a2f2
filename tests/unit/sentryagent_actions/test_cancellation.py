"""A signal may arrive at any moment: no token that the provider issued is lost because of it.

The runner sends SIGINT, then SIGTERM. As exceptions they could strike between the receipt of a token and the record
that it must be revoked; the tests below send a signal at each line that an action runs through.
"""

import signal
import sys
from queue import Empty, SimpleQueue
from threading import Event, Thread

import pytest

from sentryagent_actions.cancellation import Cancellation

EXCHANGE, CREATE, REVOKE = "POST /oidc/token", "POST /agents", "POST /token/revoke"


class Everywhere:
    """Sends a signal at one line of sentryagent_actions, counted from the first exchange."""

    def __init__(self, world, line):
        self.world, self.line, self.passed = world, line, set()

    def __call__(self, frame, event, _argument):
        if "/sentryagent_actions/" not in frame.f_code.co_filename:
            return None
        place = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and place not in self.passed and self.world.script.made(EXCHANGE):
            self.passed.add(place)
            if len(self.passed) == self.line:
                sys.settrace(None)
                signal.raise_signal(signal.SIGTERM)
                return None
        return self


@pytest.fixture
def signals(world):
    """Let the action handle the signals of this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    world.time.cancellation.on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def cancelled_at(world, line, action, **inputs):
    """Run an action that is cancelled at a line; return whether it reached the line."""
    world.time.cancellation.__init__()
    world.script.requests.clear()
    world.script.queues.clear()
    world.script.on(EXCHANGE, world.token())
    world.script.on(CREATE, world.answer(status=201, json=world.agent()))
    world.script.on(REVOKE, world.answer(json={}))
    world.script.verify = lambda: None
    for file in world.files.values():
        file.write_text("")
    tracer, traced = Everywhere(world, line), sys.gettrace()
    sys.settrace(tracer)
    try:
        world.run(action, **inputs)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(traced)
    return len(tracer.passed) >= line


@pytest.mark.usefixtures("signals")
def test_bootstrap_token_is_revoked_wherever_the_signal_strikes(world):
    """register-agent revokes its bootstrap token, at whichever line it is cancelled."""
    line = 1
    while cancelled_at(world, line, "register-agent", agent_name="bot@example.com"):
        assert len(world.script.made(REVOKE)) == 1, f"cancelled at line {line} after the exchange"
        line += 1
    assert line > 100


@pytest.mark.usefixtures("signals")
def test_token_is_kept_for_its_revocation_wherever_the_signal_strikes(world):
    """issue-token saves its token for the post step, at whichever line it is cancelled."""
    line = 1
    while cancelled_at(world, line, "issue-token", agent_id=world.agent_id):
        assert world.state()["access_token"] == world.access_token, f"cancelled at line {line}"
        line += 1
    assert line > 50


def test_token_whose_answer_comes_after_a_cancellation_is_kept(world):
    """If the exchange was already sent, the action waits for its token, which the post step must revoke."""
    answer, released = world.token(), Event()
    handle = world.script.handle_request

    def late(request):
        if request.url.path.endswith("/oidc/token"):
            world.time.cancellation.request()
            released.wait()
        return handle(request)

    world.script.handle_request = late
    world.script.on(EXCHANGE, answer)
    late_reply = Thread(target=released.set)
    receive = world.time.cancellation.receive

    def receiving(queue, seconds):
        try:
            return receive(queue, seconds)
        except KeyboardInterrupt:
            late_reply.start()
            raise

    world.time.cancellation.receive = receiving
    with pytest.raises(KeyboardInterrupt):
        world.run("issue-token", agent_id=world.agent_id)
    assert world.state()["access_token"] == world.access_token
    assert world.outputs() == {"authenticated": "false"}


def test_a_wait_ends_and_the_next_one_does_not():
    """A cancellation interrupts only one wait, so that later calls, such as a revocation, can finish."""
    cancellation, queue = Cancellation(), SimpleQueue()
    cancellation.request()
    with pytest.raises(KeyboardInterrupt):
        cancellation.receive(queue, 10)
    cancellation.request()
    queue.put("answer")
    assert cancellation.receive(queue, 10) == "answer"


def test_a_wait_that_has_begun_ends():
    """A cancellation wakes a wait that has already begun."""
    cancellation = Cancellation()

    class Begun(SimpleQueue):
        def get(self, timeout):
            cancellation.request()
            return super().get(timeout=timeout)

    begun = Begun()
    with pytest.raises(KeyboardInterrupt):
        cancellation.receive(begun, 10)
    begun.put("late")
    assert cancellation.receive(begun, 10) == "late"


def test_what_must_be_done_is_not_ended():
    """A cancellation does not interrupt a revocation and takes effect after it."""
    cancellation, queue = Cancellation(), SimpleQueue()
    cancellation.request()
    queue.put("revoked")
    with cancellation.deferred():
        assert cancellation.receive(queue, 10) == "revoked"
    with pytest.raises(KeyboardInterrupt):
        cancellation.check()


def test_a_pause_ends_by_itself():
    """Without a cancellation, pauses and waits end after their time."""
    cancellation = Cancellation()
    cancellation.sleep(0.001)
    with pytest.raises(Empty):
        cancellation.receive(SimpleQueue(), 0.001)
