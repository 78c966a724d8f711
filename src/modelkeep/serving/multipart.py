"""Small multipart bodies (pictures, a few fields), parsed in memory under limits."""

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from modelkeep.contracts.errors import Invalid, TooLarge

_MAX_PARTS = 64
_MAX_HEADERS = 8
_MAX_HEADER_BYTES = 4096
_MAX_BOUNDARY = 200


class InvalidMultipart(Invalid):
    """The multipart body cannot be read."""

    code = "invalid_multipart"


@dataclass
class Part:
    """One part: its field name, its file name ("" for a plain field) and its bytes."""

    name: str = ""
    filename: str = ""
    data: bytearray = field(default_factory=bytearray)


class _Parts:
    """Collects parts from the parser's callbacks."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.complete = False
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}

    def begin(self) -> None:
        if len(self.parts) >= _MAX_PARTS:
            raise TooLarge(f"The request has more than {_MAX_PARTS} parts.")
        self.parts.append(Part())
        self._headers = {}

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check()

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check()

    def header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()
        self._check()

    def headers_finished(self) -> None:
        _kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
        self.parts[-1].filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def finished(self) -> None:
        self.complete = True

    def _check(self) -> None:
        if len(self._headers) > _MAX_HEADERS or len(self._header) + len(self._value) > _MAX_HEADER_BYTES:
            raise TooLarge("A part of the request has too many headers.")


def parse(content_type: bytes, body: bytes) -> list[Part]:
    """Return the parts of a multipart body; raises `InvalidMultipart` or `TooLarge`."""
    _kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > _MAX_BOUNDARY:
        raise InvalidMultipart("The content type names no boundary.")
    found = _Parts()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": found.begin,
            "on_header_field": found.header_name,
            "on_header_value": found.header_value,
            "on_header_end": found.header_end,
            "on_headers_finished": found.headers_finished,
            "on_part_data": found.data,
            "on_end": found.finished,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidMultipart from error
    if not found.complete:
        raise InvalidMultipart("The multipart body ends before its last boundary.")
    return found.parts
