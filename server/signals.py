"""How a worker process hears that it is to end."""

import signal
import threading

_ENDING = (signal.SIGTERM, signal.SIGINT)


def hear_in_a_thread() -> None:
    """Let a thread take SIGTERM and SIGINT, and act as the handlers of that moment say.

    To be called in the main thread, before any other thread starts: each inherits what is blocked here.

    The kernel gives a signal to any thread that does not block it, but Python acts on it in the main thread, which
    sleeps in granian until it is told to end. One that another thread took does not wake it; under load, where
    granian starts threads all the time, a worker now and then went on until it was killed, 30 s later.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    threading.Thread(target=_hear, name="signals", daemon=True).start()


def _hear() -> None:
    while True:
        number = signal.sigwait(_ENDING)
        handler = signal.getsignal(number)
        if callable(handler):
            handler(number, None)
        else:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
            signal.raise_signal(number)
