"""Reads the first sheet of an Excel workbook (.xlsx) row by row; its first row names the columns.

Cells hold what Excel stores: a text, a number, true or false, nothing. Dates become ISO 8601 text, formulas the values
they had when the file was saved. Rows without a value are skipped, but counted.
"""

import datetime
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

from distilora.errors import DataError, MissingExtra
from distilora.files.records import Record, Reject, column_names
from distilora.progress import plural, say_once

# Raised by openpyxl and zipfile for files that are no workbooks.
_BROKEN = (zipfile.BadZipFile, ParseError, LookupError, ArithmeticError, ValueError, TypeError, EOFError, OSError)


def xlsx_records(stream: BinaryIO, name: str, first: int = 0) -> Iterator[Record | Reject]:
    """Yield the rows of an open workbook's first sheet after the `first`.

    Raises DataError if it is no workbook or names no columns, MissingExtra without openpyxl.
    """
    rows = _rows(stream, name)
    header: list[str] = []
    number = 0
    for cells in rows:
        if not header:
            header = column_names(["" if cell is None else str(cell) for cell in cells], name) if cells else []
            continue
        number += 1
        if number <= first or not cells:
            continue
        place = f"{name}: row {number}"
        if len(cells) > len(header):
            reason = f"{plural(len(cells), 'cell')} under {plural(len(header), 'column')}; name the column, or empty the cell"
            yield Reject(place, reason, number)
        else:
            yield Record(place, dict.fromkeys(header) | dict(zip(header, cells, strict=False)), number)
    if not header:
        raise DataError(f"{name}: no header; the first row must name the columns")


def _rows(stream: BinaryIO, name: str) -> Iterator[Sequence[Any]]:
    """Yield the cells of each row, without the empty ones at its end."""
    try:
        import openpyxl
    except ImportError:
        raise MissingExtra("openpyxl (needed for .xlsx)", "excel") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they concern styles and validations, which no row depends on
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        try:
            sheet = book.worksheets[0]
            if len(book.sheetnames) > 1:
                say_once(f"{name}: sheet {sheet.title!r} is read, the first of {len(book.sheetnames)}")
            sheet.reset_dimensions()  # some programs write wrong dimensions
            for row in sheet.iter_rows(values_only=True):
                cells = [_plain(cell) for cell in row]
                while cells and cells[-1] is None:
                    cells.pop()
                yield cells
        finally:
            book.close()
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: no Excel workbook, or a broken one ({reason}); save it again as .xlsx") from None


def _plain(cell: Any) -> Any:
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    return None if isinstance(cell, str) and not cell else cell
