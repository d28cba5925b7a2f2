"""Column types."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.sqlite import dialect

from sentryagent_idp.store.columns import Id, Json, Moment, Words

SQLITE = dialect()
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(9999, 1, 1), timezones=st.timezones())  # noqa: DTZ001 - the strategy adds the zone


@given(MOMENTS)
def test_a_moment_is_exact(moment):
    """A time in any zone is read back as the same time in UTC."""
    kind = Moment()
    back = kind.process_result_value(kind.process_bind_param(moment, SQLITE), SQLITE)
    assert (back, back.tzinfo) == (moment.astimezone(UTC), UTC)


@pytest.mark.parametrize(
    ("moment", "stored"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC), 1_000_001),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (None, None),
    ],
)
def test_a_moment_is_microseconds_since_the_epoch(moment, stored):
    """A time is stored as an integer number of microseconds."""
    assert Moment().process_bind_param(moment, SQLITE) == stored


def test_a_moment_without_a_zone_is_refused():
    """A time without a zone is refused, not taken for local time."""
    with pytest.raises(TypeError):
        Moment().process_bind_param(datetime(2026, 1, 1), SQLITE)  # noqa: DTZ001 - the mistake itself


def test_an_id_is_its_text():
    """A UUID is stored as 36 characters in lower case."""
    text = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert Id().process_bind_param(UUID(text.upper()), SQLITE) == text
    assert Id().process_result_value(text, SQLITE) == UUID(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [("a/b", '{"a":"a/b"}'), ("ü", '{"a":"\\u00fc"}'), ("\0", '{"a":"\\u0000"}'), ("ü\ud800", '{"a":"\\u00fc\\ud800"}')],
)  # fmt: skip
def test_json_text_is_ascii(text, stored):
    """NUL, surrogates and non-ASCII characters are escaped, so that every database can store the JSON."""
    assert Json().process_bind_param({"a": text}, SQLITE) == stored


@pytest.mark.parametrize("words", [None, (), ("a",), ("b", "a", '"')])
def test_words_come_back_as_a_tuple(words):
    """Order and absence are preserved."""
    kind = Words()
    assert kind.process_result_value(kind.process_bind_param(words, SQLITE), SQLITE) == words
