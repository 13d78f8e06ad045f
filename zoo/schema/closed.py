"""Closed sets: tables with a row per member, and unknown members in records of later versions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from zoo.util.strenum import StrEnum

Member = TypeVar("Member", bound=StrEnum)
Row = TypeVar("Row")


class Unknown(str):
    """The name of a member that this version does not know, because a later one wrote the record.

    It is not a member, so a ``match`` must handle it separately; it serialises as it was read.
    """

    __slots__ = ()


def complete(members: type[Member], rows: Mapping[Member, Row]) -> Mapping[Member, Row]:
    """Returns a read-only table with a row for every member of a set, in the set's order.

    Called at import, so that nothing runs with a member that has no row.

    Raises:
        TypeError: A member has no row.
    """
    if missing := [member.name for member in members if member not in rows]:
        raise TypeError(f"{members.__name__}: no table row for {', '.join(missing)}")
    return MappingProxyType({member: rows[member] for member in members})


def read_member(members: type[Member], text: str) -> Member | Unknown:
    """Returns the member of a name, or :class:`Unknown` if there is none."""
    try:
        return members(text)
    except ValueError:
        return Unknown(text)


class Lenient:
    """Annotation of a pydantic field that holds a member, or the name of an unknown member.

    ``kind: Annotated[Runtime | Unknown, Lenient(Runtime)]`` reads any string and writes it back.
    """

    def __init__(self, members: type[StrEnum]) -> None:
        self._members = members

    def _read(self, value: str) -> StrEnum | Unknown:
        return read_member(self._members, value)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Returns a schema that reads a string as a member if there is one of that name."""
        return core_schema.no_info_after_validator_function(
            self._read,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(
                str.__str__, return_schema=core_schema.str_schema()
            ),
        )
