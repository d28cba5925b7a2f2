import pytest

from mock_idp.strict_fields import InvalidMemberError, read_members

KINDS = {
    "text": "a string",
    "flag": "true or false",
    "number": "a number",
    "count": "a positive integer",
    "object": "an object",
    "texts": "an object of strings",
    "list": "an array of strings",
}


@pytest.mark.parametrize(
    "member",
    [
        {"text": ""},
        {"flag": False},
        {"number": -1.5},
        {"count": 1},
        {"object": {"a": None}},
        {"texts": {"a": "b"}},
        {"list": []},
        {},
    ],
)
def test_members_of_the_right_type_are_taken_as_they_are(member):
    """A member of its declared type comes through unchanged."""
    assert read_members(member, KINDS) == member


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ({"text": 1}, "must be a string"),
        ({"flag": 1}, "must be true or false"),
        ({"flag": "true"}, "must be true or false"),
        ({"number": True}, "must be a number"),
        ({"number": float("nan")}, "must be a number"),
        ({"number": float("inf")}, "must be a number"),
        ({"count": 0}, "must be a positive integer"),
        ({"count": True}, "must be a positive integer"),
        ({"count": 1.0}, "must be a positive integer"),
        ({"object": []}, "must be an object"),
        ({"texts": {"a": 1}}, "must be an object of strings"),
        ({"list": "ab"}, "must be an array of strings"),
        ({"list": [1]}, "must be an array of strings"),
    ],
)
def test_wrong_types_are_named(member, reason):
    """A wrong type is refused with the member's name and nothing is coerced."""
    with pytest.raises(InvalidMemberError) as caught:
        read_members(member, KINDS)

    assert (caught.value.field, caught.value.reason) == (next(iter(member)), reason)


def test_null_is_the_same_as_absent():
    """A member that is null counts as not given."""
    assert read_members({"text": None}, KINDS) == {}


def test_an_unknown_member_is_refused():
    """A member that nothing reads is an error, never ignored."""
    with pytest.raises(InvalidMemberError, match=r"`typo` is not known here; known are text, flag"):
        read_members({"typo": None}, KINDS)


@pytest.mark.parametrize("body", [None, [], "{}", 1])
def test_a_body_must_be_an_object(body):
    """Any other JSON value is refused."""
    with pytest.raises(InvalidMemberError, match="`body` must be a JSON object"):
        read_members(body, KINDS)
