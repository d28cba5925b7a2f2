"""JSON without ambiguities."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentryagent_idp.jose import strict_json
from sentryagent_idp.jose.strict_json import Limits, StrictJsonError, parse

LIMITS = Limits(depth=4, fields=10, string_length=20)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, -2, true, null, "x"]} ', {"a": [1, -2, True, None, "x"]}),
        ('{"\u00fc":"\\u00fc\\ud83d\\ude00"}', {"\u00fc": "\u00fc\U0001f600"}),
        (b'{"a":{"b":1},"c":{"b":1}}', {"a": {"b": 1}, "c": {"b": 1}}),
        (b"[[[[]]]]", [[[[]]]]),
        (b'"[[[[[[{{{{"', "[[[[[[{{{{"),
        (b'"\\"[[[[[["', '"[[[[[['),
        (b'["\\\\","[[[["]', ["\\", "[[[["]),
        (b"9999999999999999999", 9999999999999999999),
        (b"[1,2,3,4,5,6,7,8,9,10]", list(range(1, 11))),
    ],
)
def test_accepted(text, value):
    """Ordinary JSON is accepted, and brackets within strings do not count as nesting."""
    assert parse(text, LIMITS) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a":1,"a":2}', "a field is given more than once"),
        (b'{"a":1,"\\u0061":2}', "a field is given more than once"),
        (b'[{"b":{"a":1,"a":1}}]', "a field is given more than once"),
        (b"NaN", "NaN is not a JSON value"),
        (b"[Infinity]", "Infinity is not a JSON value"),
        (b"-Infinity", "-Infinity is not a JSON value"),
        (b"1.0", "without a fraction"),
        (b"1e3", "without a fraction"),
        (b"1" * 20, "more than 19 digits"),
        (b"-" + b"1" * 20, "more than 19 digits"),
        (b"[[[[[]]]]]", "nested deeper than 4"),
        (b"[" * 100_000, "nested deeper than 4"),
        (b'{"a":' * 100_000, "nested deeper than 4"),
        (b"[1,2,3,4,5,6,7,8,9,10,11]", "more than 10 fields"),
        (b"[[1,2,3,4,5],[1,2,3,4]]", "more than 10 fields"),
        (b'"' + b"x" * 21 + b'"', "more than 20 characters"),
        (b'{"' + b"x" * 21 + b'":1}', "more than 20 characters"),
        (b'"\\ud800"', "a lone surrogate"),
        (b'{"\\udc00":1}', "a lone surrogate"),
        ('"\ud800"', "a lone surrogate"),
        (b'"\xff"', "not UTF-8: invalid byte at position 1"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a"', "not JSON"),
        (b'"a', "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"01", "not JSON"),
        (b'"\x01"', "not JSON"),
    ],
)
def test_refused(text, reason):
    """Ambiguous JSON, or JSON that costs more than its size, is refused (B10, B11)."""
    with pytest.raises(StrictJsonError, match=reason) as caught:
        parse(text, LIMITS)
    assert caught.value.reason == str(caught.value)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'{"a":1,"b":2,"b":3}', "b"),
        (b'{"a\\n":1,"a\\n":3}', None),
        (b'{"a":"' + b"x" * 21 + b'"}', "a"),
        (b'{"a":{"b":["' + b"x" * 21 + b'"]}}', "a"),
        (b'{"a":"\\ud800"}', "a"),
        (b"[", None),
    ],
)
def test_the_field_is_named_where_it_is_known(text, field):
    """The error has the field's name if it is known and printable."""
    with pytest.raises(StrictJsonError) as caught:
        parse(text, LIMITS)
    assert caught.value.field == field


def test_floats_where_they_are_allowed():
    """Fractions are accepted if allowed, but must be finite."""
    assert parse(b"[1.5,1e3]", Limits(floats=True)) == [1.5, 1000.0]
    for text in (b"1e400", b"-1e400"):
        with pytest.raises(StrictJsonError, match="too large"):
            parse(text, Limits(floats=True))


@pytest.mark.parametrize(
    "text", ['"' * 32_768, '"\\' * 16_384, '"' + '\\"' * 16_384, "[" * 4 + '"a' * 8_000, "{" * 32_768]
)
def test_broken_texts_are_not_slow(text):
    """Unfinished strings are refused in linear time."""
    with pytest.raises(StrictJsonError):
        parse(text, LIMITS)


def test_depth_does_not_depend_on_the_callers_stack():
    """The nesting limit holds even on a nearly full stack, and never depends on the parser's own recursion (B10)."""

    def deep(levels):
        return deep(levels - 1) if levels else parse(b"[" * 50_000, LIMITS)

    with pytest.raises(StrictJsonError):
        deep(700)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(),
        lambda it: st.lists(it) | st.dictionaries(st.text(), it),
    )
)
def test_agrees_with_the_standard_library(value):
    """Accepted JSON has the same value as with `json`."""
    limits = Limits(depth=50, fields=10_000, string_length=10_000)
    text = json.dumps(value)
    assert parse(text, limits) == json.loads(text)


@given(st.binary(max_size=200) | st.text('[]{}",:\\u0aeE+-.19 tnfN', max_size=100).map(str.encode))
def test_nothing_else_is_raised(text):
    """Any bytes give the value of the standard library or a `StrictJsonError`."""
    with contextlib.suppress(StrictJsonError):
        assert parse(text, LIMITS) == json.loads(text)


def test_a_member_that_is_there_twice_is_found_in_linear_time():
    """Duplicate names are found in linear time: a quadratic search would block a worker for minutes."""
    members = ",".join(f'"m{number}":0' for number in range(200_000))

    with pytest.raises(StrictJsonError, match="a field is given more than once") as refusal:
        parse(f'{{{members},"last":0,"last":0}}', Limits(fields=1))

    assert refusal.value.field == "last"


JSON_TEXTS = st.one_of(
    st.lists(
        st.sampled_from([b"{", b"}", b'"', b":", b",", b"1", b"-", b"0", b"\\", b"\x00", b"\xff", b"e", b'"a":"b"', b'"a":1'])
    ).map(b"".join),
    st.lists(
        st.tuples(
            st.text(max_size=3),
            st.one_of(st.text(max_size=5), st.integers(-(10**20), 10**20), st.floats(), st.booleans()),
        ),
        max_size=4,
    ).map(lambda pairs: "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{json.dumps(value)}" for name, value in pairs) + "}").map(str.encode),
)  # fmt: skip


@given(JSON_TEXTS, st.sampled_from([Limits(), Limits(fields=2), Limits(string_length=12)]))
def test_what_is_read_fast_is_read_in_the_same_way(text, limits):
    """The fast path may give up on a text, but its values are those of the slow path."""
    fast = strict_json._flat(text, limits)

    if fast is not None:
        slow = strict_json._value(text, limits)
        assert (list(fast.items()), [*map(type, fast.values())]) == (
            list(slow.items()),
            [*map(type, slow.values())],
        )


@pytest.mark.parametrize(
    ("text", "is_flat"),
    [
        (b'{"a":"b", "c": -1}', True),
        (b"{}", True),
        ('{"\u00fc":"\u00e9"}'.encode(), True),
        (b'{"a":true}', False),
        (b'{"a":1.0}', False),
        (b'{"a":1e2}', False),
        (b'{"a":"\\u0061"}', False),
        (b'{"a":1,"a":2}', False),
        (b'{"a":{}}', False),
        (b'{"a":9223372036854775808}', False),
        (b"[]", False),
    ],
)
def test_which_texts_are_read_fast(text, is_flat):
    """The fast path reads flat objects of strings and integers, without escapes or duplicate names."""
    assert (strict_json._flat(text, Limits()) is not None) is is_flat
