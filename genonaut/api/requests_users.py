"""Say what bodies about users may hold; what does not fit is a 422 that names the field."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from genonaut.api.requests import Body, storable
from genonaut.core.errors import InvalidInputError
from genonaut.core.text import is_unprinted
from genonaut.domain import accounts
from genonaut.domain.accounts import Wanted
from genonaut.domain.users import Role

RoleName = Literal["user", "auditor", "operator", "admin"]


def _address(value: str) -> str:
    try:
        return accounts.check_email(storable(value))
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


def _label(value: str) -> str:
    storable(value)
    if not value.strip() or any(is_unprinted(char) for char in value):
        raise ValueError("must be one line, without control characters, and not blank")
    return value.strip()


def _no_default(schema: dict[str, Any]) -> None:
    del schema["default"]  # what is left out stays as it is


Email = Annotated[str, Field(max_length=254), AfterValidator(_address)]
Username = Annotated[str, Field(max_length=50), AfterValidator(storable)]


class UserRequest(Body):
    """A new user."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"username": "ada", "role": "operator", "email": "ada@example.org"}
        }
    )

    username: Username = Field(
        description="1 to 50 of a-z, 0-9, `.`, `_`, `-`; it cannot be changed."
    )
    role: RoleName = Field(default="user", description="Each may do what those before it may.")
    email: Email | None = Field(default=None, description="For people; nothing is sent there.")


class UserChange(Body):
    """What is to become of a user; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"role": "auditor"}})

    role: RoleName = Field(
        default="user",
        description="Counts from the next request on, for open sockets, too.",
        json_schema_extra=_no_default,
    )
    email: Email | None = Field(
        default=None, description="null takes it away.", json_schema_extra=_no_default
    )
    is_active: bool = Field(
        default=True,
        description="false ends every session and lets every token rest, at once.",
        json_schema_extra=_no_default,
    )

    def to_wanted(self) -> Wanted:
        """Give what was said to the domain."""
        wanted = Wanted()
        if "role" in self.model_fields_set:
            wanted["role"] = Role(self.role)
        if "email" in self.model_fields_set:
            wanted["email"] = self.email
        if "is_active" in self.model_fields_set:
            wanted["is_active"] = self.is_active
        return wanted


class TokenRequest(Body):
    """A new API token."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "laptop", "days": 90}})

    name: Annotated[str, Field(max_length=100), AfterValidator(_label)] = Field(
        description="What it is for."
    )
    days: int | None = Field(
        default=None,
        ge=1,
        le=accounts.MAX_TOKEN_DAYS,
        description="How long it is valid; left out: for ever.",
    )
