"""Say what bodies about recommendations may hold."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from genonaut.api.requests import Body


class InteractionRequest(Body):
    """Tell what one did with an item."""

    model_config = ConfigDict(json_schema_extra={"example": {"kind": "rate", "rating": 5}})

    kind: Literal["view", "like", "unlike", "rate", "download", "share"]
    rating: int | None = Field(default=None, ge=1, le=5, description="With `rate` alone: stars.")

    @model_validator(mode="after")
    def _rating_belongs_to_rate(self) -> Self:
        if (self.rating is not None) != (self.kind == "rate"):
            raise ValueError("rating belongs to the kind rate, which needs it")
        return self
