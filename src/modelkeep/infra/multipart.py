"""Multipart bodies, read as they arrive: each part's bytes go to whoever its name asks for, under limits.

The parser is python-multipart's; here are the limits it leaves to its caller, and one error for all that can be wrong.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from modelkeep.contracts.errors import Invalid, TooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS: Final = 64
_MOST_HEADERS: Final = 8
_MOST_HEADER_BYTES: Final = 4096
_LONGEST_BOUNDARY: Final = 200

Take = Callable[[bytes], None]
Begin = Callable[[str, str], Take]


class InvalidMultipart(Invalid):
    """The multipart body cannot be read."""

    code = "invalid_multipart"


class MultipartReader:
    """Reads one body. `begin(name, filename)` is called for each part ("" where it has none) and says who takes its bytes."""

    def __init__(self, content_type: bytes, begin: Begin) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data":
            raise InvalidMultipart("The body is not multipart/form-data.")
        if not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
            raise InvalidMultipart("The content type names no boundary.")
        self._begin = begin
        self._take: Take = _nobody
        self._parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._whole = False
        self._parser = MultipartParser(boundary, self._callbacks())

    def feed(self, data: bytes) -> None:
        """Take in the next piece of the body; raises `InvalidMultipart`, `TooLarge`, or what `begin` and its takers raise."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidMultipart from error

    def finish(self) -> None:
        """Say that the body has ended; raises `InvalidMultipart` when it should not have."""
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise InvalidMultipart from error
        if not self._whole:
            raise InvalidMultipart("The multipart body ends before its last boundary.")

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": lambda data, start, end: self._collect(self._name, data[start:end]),
            "on_header_value": lambda data, start, end: self._collect(self._value, data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_end": self._ends,
        }

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise TooLarge(f"The request has more than {_MOST_PARTS} parts.")
        self._take = _nobody
        self._headers = {}

    def _collect(self, text: bytearray, data: bytes) -> None:
        text += data
        if len(self._name) + len(self._value) > _MOST_HEADER_BYTES:
            raise TooLarge("A part of the request has too large a header.")

    def _header_ends(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()
        if len(self._headers) > _MOST_HEADERS:
            raise TooLarge("A part of the request has too many headers.")

    def _headers_end(self) -> None:
        _kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        try:
            name, filename = options.get(b"name", b"").decode(), options.get(b"filename", b"").decode()
        except UnicodeDecodeError as error:
            raise InvalidMultipart("A part's name or file name is not UTF-8 text.") from error
        self._take = self._begin(name, filename)

    def _ends(self) -> None:
        self._whole = True


def _nobody(data: bytes) -> None:
    """Take nothing: between parts there is nothing to take."""
    del data
