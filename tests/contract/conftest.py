"""A fixture that records the statements sent to the database."""

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from sentryagent_idp.store import driver


@pytest.fixture
def statements(monkeypatch):
    """Every statement sent, with its values, whether through SQLAlchemy or directly through the driver."""
    sent = []

    def run(connection, statement, values=()):
        sent.append((statement, values))
        return by_the_driver(connection, statement, values)

    def note(_connection, _cursor, statement, values, *_):
        sent.append((statement, values))

    by_the_driver = driver.run
    monkeypatch.setattr(driver, "run", run)
    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)
