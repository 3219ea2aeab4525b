"""``response_format``: the form that an answer shall have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from serving.generator.json_schema import ANY_OBJECT, check_schema
from serving.routes.schemas import Body, JsonObject

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class SchemaFormat(Body):
    """A JSON schema with OpenAI's fields around it.

    Attributes:
        name: Accepted since clients send it; likewise ``description``.
        strict: Accepted since every answer follows the schema, and a schema of which a part would
            be ignored is refused, whatever it says.
        schema_: The schema.
    """

    name: Name
    description: str | None = None
    strict: bool | None = None
    schema_: JsonObject = Field(alias="schema")


class ResponseFormat(Body):
    """OpenAI's ``response_format``."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type 'json_schema', and with no other")
        return self

    def answer_schema(self) -> Mapping[str, Any] | None:
        """The schema that an answer follows; None if it is free.

        Raises:
            InvalidField: A part of the schema would be ignored.
        """
        if self.type == "text":
            return None
        if self.json_schema is None:
            return ANY_OBJECT
        check_schema(self.json_schema.schema_, "response_format.json_schema.schema")
        return self.json_schema.schema_
