"""A record of the provider's SQL statements."""

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from sentryagent_idp.store import driver


@pytest.fixture
def statements(monkeypatch):
    """The SQL statements sent through SQLAlchemy or directly through the driver, each with its values."""
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
