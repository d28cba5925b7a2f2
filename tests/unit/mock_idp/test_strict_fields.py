import pytest

from mock_idp.strict_fields import InvalidFieldError, read_fields

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
    "given",
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
def test_fields_of_the_right_type_are_taken_as_they_are(given):
    """A field of its declared type is not changed."""
    assert read_fields(given, KINDS) == given


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"text": 1}, "must be a string"),
        ({"flag": 1}, "must be true or false"),
        ({"flag": "true"}, "must be true or false"),
        ({"number": True}, "must be a number"),
        ({"number": float("nan")}, "must be a number"),
        ({"number": float("inf")}, "must be a number"),
        ({"number": -(10**400)}, "must be a number"),
        ({"count": 0}, "must be a positive integer"),
        ({"count": True}, "must be a positive integer"),
        ({"count": 1.0}, "must be a positive integer"),
        ({"object": []}, "must be an object"),
        ({"texts": {"a": 1}}, "must be an object of strings"),
        ({"list": "ab"}, "must be an array of strings"),
        ({"list": [1]}, "must be an array of strings"),
    ],
)
def test_wrong_types_are_named(given, reason):
    """A value of the wrong type is refused with the field's name, and never converted."""
    with pytest.raises(InvalidFieldError) as caught:
        read_fields(given, KINDS)

    assert (caught.value.field, caught.value.reason) == (next(iter(given)), reason)


def test_null_is_the_same_as_absent():
    """A null field counts as absent."""
    assert read_fields({"text": None}, KINDS) == {}


def test_an_unknown_field_is_refused():
    """An unknown field is an error."""
    with pytest.raises(InvalidFieldError, match=r"`typo` is an unknown field; allowed fields are text, flag"):
        read_fields({"typo": None}, KINDS)


@pytest.mark.parametrize("body", [None, [], "{}", 1])
def test_a_body_must_be_an_object(body):
    """Any other JSON value is refused."""
    with pytest.raises(InvalidFieldError, match="`body` must be a JSON object"):
        read_fields(body, KINDS)
