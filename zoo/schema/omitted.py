"""Models whose later fields are not in their JSON at the default, so that older keys stay."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class OmitsDefaults(BaseModel):
    """A model that leaves some fields out of its JSON while they have their defaults.

    Attributes:
        omitted: Their names.
    """

    omitted: ClassVar[frozenset[str]]

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> Any:
        fields = handler(self)
        for name in self.omitted & fields.keys():
            if getattr(self, name) == type(self).model_fields[name].default:
                del fields[name]
        return fields

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # Of the fields: a serializer states nothing about what it returns.
        of_fields: Any = {k: value for k, value in core_schema.items() if k != "serialization"}
        return handler(of_fields)
