"""`read_json`, the reader of untrusted JSON files."""

import os

import pytest

from avsdn_tf.errors import UserError
from avsdn_tf.schemas import Schema, Text, read_json


class Example(Schema):
    count: int
    share: float = 0.0
    names: tuple[Text, ...] = ()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "example.json"


def read(path):
    return read_json(path, Example, "an example")


def test_a_valid_file_is_read(path):
    path.write_text('\ufeff{"count": 3, "share": 1, "names": ["é", ""]}', "utf-8")
    assert read(path) == Example(count=3, share=1.0, names=("é", ""))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "EOF"),
        (b"null", "object"),
        (b"[1]", "object"),
        (b"{}", "count"),
        (b'{"count": 3', "EOF"),
        (b'{"count": 3} {}', "trailing"),
        (b'{"count": 3.5}', "count"),
        (b'{"count": "3"}', "count"),
        (b'{"count": true}', "count"),
        (b'{"count": %b}' % (b"9" * 5000), "number out of range"),
        (b'{"count": 1, "share": NaN}', "share"),
        (b'{"count": 1, "share": -Infinity}', "share"),
        (b'{"count": 1, "share": 1e999}', "share"),
        (b'{"count": 1, "names": "a"}', "names"),
        (b'{"count": 1, "names": ["a", 2]}', "names.1"),
        (b'{"count": 1, "names": ["\\u0000"]}', "names.0"),
        (b'{"count": 1, "names": ["\\u001b[2J"]}', "names.0"),
        (b'{"count": 1, "names": ["\\ud800"]}', "hex escape"),
        (b'{"count": 1, "names": ["\xff"]}', "unicode"),
        (b'{"count": 1, "other": 2}', "other"),
        (b'{"count": %b1%b}' % (b"[" * 10_000, b"]" * 10_000), "recursion"),
        (b'{"count": 1, "other": %b}' % (b"[" * 10_000), "recursion"),
        (b'{"count": 1}' + b" " * 2**20, "more than 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, bytes) else "",
)
def test_invalid_content_raises_a_short_user_error(path, content, named):
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: expected an example. Received: ")
    assert named in message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 500


def test_missing_and_special_files_are_refused(path, tmp_path):
    for name in ("nothing", "a\0b", ""):
        with pytest.raises(UserError, match="expected an example"):
            read(tmp_path / name)
    os.mkfifo(path)
    with pytest.raises(UserError, match="no regular file"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="no regular file"):
        read(path)
