"""Small multipart bodies (pictures, a few fields), kept in memory: the body's own limit is theirs."""

from dataclasses import dataclass, field

from modelkeep.infra.multipart import MultipartReader, Take


@dataclass
class Part:
    """One part: its field name, its file name ("" for a plain field) and its bytes."""

    name: str = ""
    filename: str = ""
    data: bytearray = field(default_factory=bytearray)


def parse(content_type: bytes, body: bytes) -> list[Part]:
    """Return the parts of a multipart body; raises `InvalidMultipart` or `TooLarge`."""
    parts: list[Part] = []

    def begin(name: str, filename: str) -> Take:
        parts.append(Part(name, filename))
        return parts[-1].data.extend

    reader = MultipartReader(content_type, begin)
    reader.feed(body)
    reader.finish()
    return parts
