"""How a worker hears that it is to end."""

import signal
import subprocess
import sys

import pytest

PATIENCE_SECONDS = 20
PROCESSES = 8
BUSY = """
import signal, threading
from server import signals

done = threading.Event()
signals.hear_in_a_thread()

def start_threads():
    while True:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

for _ in range(2):
    threading.Thread(target=start_threads, daemon=True).start()
"""
UNTIL_TOLD = """
signal.signal(signal.{name}, lambda *_: done.set())
print("ready", flush=True)
done.wait()
print("in order", flush=True)
"""
FOR_EVER = """
signal.signal(signal.{name}, signal.SIG_DFL)
print("ready", flush=True)
done.wait()
"""
TWICE = """
count = 0
def again(*_):
    global count
    count += 1
    print(count, flush=True)
    if count == 2:
        done.set()
signal.signal(signal.{name}, again)
print("ready", flush=True)
done.wait()
"""


@pytest.fixture
def busy():
    """Start processes that start one thread after the other, and let their main thread sleep."""
    running = []

    def start(program, name, count=1):
        command = [sys.executable, "-c", BUSY + program.format(name=name)]
        running.extend(subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count))
        for process in running:
            assert process.stdout.readline() == "ready\n"
        return running

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_that_any_thread_may_take_ends_the_main_thread_s_sleep(busy, name):
    """Without the thread that waits for signals, two in five of such processes go on for ever."""
    processes = busy(UNTIL_TOLD, name, PROCESSES)

    for process in processes:
        process.send_signal(signal.Signals[name])

    assert [it.communicate(timeout=PATIENCE_SECONDS)[0] for it in processes] == ["in order\n"] * PROCESSES


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_process_that_has_no_handler_yet_ends_at_once(busy, name):
    (process,) = busy(FOR_EVER, name)

    process.send_signal(signal.Signals[name])

    assert process.wait(PATIENCE_SECONDS) == -signal.Signals[name]


def test_the_handler_of_the_moment_is_called_each_time(busy):
    (process,) = busy(TWICE, "SIGTERM")

    process.terminate()
    assert process.stdout.readline() == "1\n"
    process.terminate()

    assert process.communicate(timeout=PATIENCE_SECONDS) == ("2\n", None)
