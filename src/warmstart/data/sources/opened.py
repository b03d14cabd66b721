"""Open text files of any encoding, packed by gzip or not."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from warmstart.data.sources.parquet import FREE_BYTES, MAX_EXPANSION
from warmstart.errors import UserError, says_nothing_of_the_file

GZIP = ".gz"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class TextFile:
    """A text file that is read as bytes of UTF-8 or as text.

    Args:
        path: The file; with the suffix ``.gz`` it is unpacked while it is read.
        named: The option and path as the user gave them, for messages.
        encoding: ``data.encoding``.

    Raises:
        UserError: The encoding is unknown, or the file is UTF-16 and no encoding is set.
    """

    def __init__(self, path: Path, named: str, encoding: str) -> None:
        self.path, self.named = path, named
        check_encoding(encoding)
        is_utf_8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
        self._encoding = "utf-8-sig" if is_utf_8 else encoding
        self._recoded = not is_utf_8
        if is_utf_8:
            with self._bytes() as file:
                if file.read(2) in _UTF_16:
                    raise UserError(f"{named} is UTF-16 text. Set data.encoding=utf-16.")

    @contextmanager
    def binary(self) -> Iterator[BinaryIO]:
        """Open the file; what is read is UTF-8, with bytes that cannot be decoded unchanged."""
        if self._recoded:
            with self.text() as text:
                yield cast(BinaryIO, _Recoded(text))
        else:
            with self._bytes() as file:
                yield file

    @contextmanager
    def text(self, newline: str | None = None) -> Iterator[TextIO]:
        """Open the file as text, with bytes that cannot be decoded as surrogate escapes.

        Raises:
            UserError: The file does not have the encoding; only for encodings of two or four bytes a character.
        """
        with self._bytes() as file:
            text = io.TextIOWrapper(file, encoding=self._encoding, errors="surrogateescape", newline=newline)
            try:
                yield text
            except UnicodeError as error:
                raise UserError(
                    f"{self.named} is not {self._encoding} text: {error}. Set data.encoding to the file's encoding."
                ) from error
            finally:
                text.detach()

    @contextmanager
    def _bytes(self) -> Iterator[BinaryIO]:
        if self.path.suffix.lower() != GZIP:
            with self.path.open("rb") as plain:
                yield plain
            return
        with gzip.open(self.path) as packed:
            yield cast(BinaryIO, io.BufferedReader(_Unpacked(packed, self.path, self.named), 2**16))


def check_encoding(encoding: str) -> None:
    """Raise a UserError if ``data.encoding`` is not an encoding of text."""
    try:
        "".encode(encoding)
    except LookupError:
        raise UserError(
            f"data.encoding={encoding!r} is not an encoding of text. Set one of Python's, such as utf-8, cp1252, "
            "cp1251, latin-1, utf-16, gb18030 or shift_jis."
        ) from None


class _Unpacked(io.RawIOBase):
    """What a gzip file unpacks to, up to a limit."""

    def __init__(self, packed: Any, path: Path, named: str) -> None:
        self._packed, self._named = packed, named
        self._bound = MAX_EXPANSION * path.stat().st_size + FREE_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        position: int = self._packed.seek(offset, whence)
        return position

    def tell(self) -> int:
        position: int = self._packed.tell()
        return position

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._packed.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            if says_nothing_of_the_file(error):
                raise
            raise UserError(f"{self._named} is not a complete gzip file: {error}. Copy it again.") from error
        if self.tell() > self._bound:
            raise UserError(
                f"{self._named} unpacks to more than {MAX_EXPANSION} times its size, far more than text does. If the "
                "file is valid, unpack it first."
            )
        buffer[: len(data)] = data
        return len(data)


class _Recoded:
    """A text file whose lines are read as bytes of UTF-8."""

    def __init__(self, text: TextIO) -> None:
        self._text = text

    def read(self, size: int = -1) -> bytes:
        return self._text.read(size).encode("utf-8", "surrogateescape")

    def readline(self, size: int = -1) -> bytes:
        return self._text.readline(size).encode("utf-8", "surrogateescape")

    def seek(self, offset: int) -> int:
        return self._text.seek(offset)
