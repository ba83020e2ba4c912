"""Declare a task: a function over typed parameters, from which everything else follows.

Validation, the Celery task, the API's catalogue, the command line and the docs all come from the
``Params`` model, the ``Result`` model and the docstring. Knows no Celery: a task can be imported,
listed and tested without it.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from genonaut.core.errors import ConflictError, GenonautError, InvalidInputError, NotFoundError
from genonaut.domain.run_attempts import Failure
from genonaut.domain.runs import NewRun, Overlap, Trigger
from genonaut.worker.context import TaskContext
from genonaut.worker.queues import DEFAULT, HARD_AFTER_SOFT_S, MAX_SOFT_LIMIT_S, QUEUES

__all__ = [
    "Failure",
    "Overlap",
    "TaskContext",
    "TaskDefinition",
    "TaskParams",
    "TaskResult",
    "catalogue",
    "find",
    "task",
]

MAX_PARAMS_BYTES = 64 * 1024

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_NAME_MAX = 100
_KEY_MAX = 255
_NOT_RESULTS = {"status", "error", "errors"}


class TaskParams(BaseModel):
    """What a run may be told; every field has a description.

    ``retired`` names parameters that are gone: runs and schedules saved with one are accepted for
    another release, and it is dropped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    retired: ClassVar[frozenset[str]] = frozenset()


class TaskResult(BaseModel):
    """What a run gives back. How it ended is the run's business, not the result's."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Params = TypeVar("Params", bound=TaskParams)
Result = TypeVar("Result", bound=TaskResult)


Work = Callable[[TaskContext, Params], Result]


class TaskDeclarationError(GenonautError):
    """A task is declared wrongly; the message says how."""

    code = "invalid_task"


class UnknownTaskError(NotFoundError):
    """There is no task of this name."""

    code = "unknown_task"


@dataclass(frozen=True)
class TaskDefinition(Generic[Params, Result]):
    """A task: what its runs are told, what they do and what they give back."""

    name: str
    title: str
    description: str
    work: Work[Params, Result]
    params: type[Params]
    result: type[Result]
    queue: str
    soft_limit_s: int
    overlap: Overlap
    overlap_key: Callable[[Params], str] | None
    max_attempts: int
    has_dry_run: bool
    only_failed: Callable[[Params, int], Params] | None
    aliases: tuple[str, ...]

    def __call__(self, ctx: TaskContext, params: Params) -> Result:
        """Do the work."""
        return self.work(ctx, params)

    @property
    def hard_limit_s(self) -> int:
        """When a run that does not heed its soft limit is killed, seconds."""
        return self.soft_limit_s + HARD_AFTER_SOFT_S

    @property
    def module(self) -> str:
        """Where it is declared."""
        return self.work.__module__

    def validate(self, params: Any) -> Params:
        """Check parameters, as JSON gives them.

        Raises: InvalidInputError: naming the first field that is wrong as ``params.name``.
        """
        if isinstance(params, dict):
            params = {k: v for k, v in params.items() if k not in self.params.retired}
        try:
            # As JSON: strict about types, and yet a list is good for a tuple.
            checked = self.params.model_validate_json(json.dumps(params), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = ".".join(("params", *map(str, first["loc"])))
            raise InvalidInputError(f"{field}: {first['msg']}", field=field) from error
        if len(checked.model_dump_json().encode()) > MAX_PARAMS_BYTES:
            raise InvalidInputError(
                f"params: at most {MAX_PARAMS_BYTES // 1024} KiB of JSON", field="params"
            )
        return checked

    def validate_failed(self, params: Any, run_id: int) -> Params:
        """Give the parameters for only what the run ``run_id`` with ``params`` could not do.

        Raises:
            InvalidInputError: ``params`` are not valid any more.
            ConflictError: the task has no such way.
        """
        if self.only_failed is None:
            raise ConflictError(f"{self.name} cannot try failed items alone", code="not_alone")
        return self.only_failed(self.validate(params), run_id)

    def request(
        self,
        params: Params,
        *,
        trigger: Trigger,
        dry_run: bool = False,
        overlap: Overlap | None = None,
        **values: Any,
    ) -> NewRun:
        """Give the request for a run of this task, for ``domain/runs.py``.

        ``overlap`` is a schedule's own policy instead of the task's; ``values`` are further fields
        of :class:`NewRun`, such as ``actor``.

        Raises: InvalidInputError: a dry run of a task that has none.
        """
        if dry_run and not self.has_dry_run:
            raise InvalidInputError(f"dry_run: {self.name} has no dry run", field="dry_run")
        key = self.overlap_key(params) if self.overlap_key else ""
        key = f"dry:{key}" if dry_run else key
        if len(key) > _KEY_MAX:
            key = hashlib.sha256(key.encode()).hexdigest()
        return NewRun(
            task=self.name,
            queue=self.queue,
            trigger=trigger,
            params=params.model_dump(mode="json"),
            overlap=overlap or self.overlap,
            overlap_key=key,
            dry_run=dry_run,
            max_attempts=self.max_attempts,
            **values,
        )

    def public(self) -> dict[str, Any]:
        """Give what the catalogue shows, ready for JSON; parameters and result as JSON Schema."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "queue": self.queue,
            "soft_limit_s": self.soft_limit_s,
            "hard_limit_s": self.hard_limit_s,
            "overlap": self.overlap,
            "has_overlap_key": self.overlap_key is not None,
            "max_attempts": self.max_attempts,
            "dry_run": self.has_dry_run,
            "only_failed": self.only_failed is not None,
            "aliases": list(self.aliases),
            "params_schema": self.params.model_json_schema(),
            "result_schema": self.result.model_json_schema(mode="serialization"),
        }


_catalogue: dict[str, TaskDefinition[Any, Any]] = {}
_by_alias: dict[str, TaskDefinition[Any, Any]] = {}


def catalogue() -> dict[str, TaskDefinition[Any, Any]]:
    """Give the tasks declared so far by name, sorted; see ``worker/discovery.py`` for all."""
    return dict(sorted(_catalogue.items()))


def find(name: str) -> TaskDefinition[Any, Any]:
    """Give a task by its name or an older one.

    Raises: UnknownTaskError: there is no such task.
    """
    found = _catalogue.get(name) or _by_alias.get(name)
    if found is None:
        raise UnknownTaskError(f"there is no task {name[:_NAME_MAX]!r}")
    return found


def known_names() -> set[str]:
    """Give every name a run may carry, older ones among them."""
    return {*_catalogue, *_by_alias}


def forget(name: str) -> None:
    """Take a task out of the catalogue; for tests, which declare their own."""
    declared = _catalogue.pop(name, None)
    for alias in declared.aliases if declared else ():
        _by_alias.pop(alias, None)


def task(
    name: str,
    *,
    title: str,
    queue: str = DEFAULT,
    soft_limit_s: int = 300,
    overlap: Overlap | str = Overlap.SKIP,
    overlap_key: Callable[[Any], str] | None = None,
    max_attempts: int = 4,
    dry_run: bool = False,
    only_failed: Callable[[Any, int], Any] | None = None,
    aliases: tuple[str, ...] = (),
) -> Callable[[Work[Params, Result]], TaskDefinition[Params, Result]]:
    """Declare the function below as a task.

    Args:
        name: ``area.verb``; it is stored with every run, so change it only with an alias.
        title: a few words for a heading.
        queue: who works on it; see ``worker/queues.py``.
        soft_limit_s: how long a run may take; it is killed five minutes later.
        overlap: what becomes of a second run while one is unfinished.
        overlap_key: gives, from the parameters, which runs must not overlap; default: all.
        max_attempts: how often a run is begun at most when workers are lost, or after a
            ``RetryableError``.
        dry_run: whether the function heeds ``ctx.dry_run``.
        only_failed: gives, from the parameters and the id of a run, those of another that tries
            only the items which that run could not do; default: the task has no such way.
        aliases: older names, under which runs and schedules may still be stored. The migration of
            a rename gives unfinished runs the new name: overlap is judged by what is stored.

    Raises: TaskDeclarationError: the declaration is wrong; the message says how.
    """

    def declare(work: Work[Params, Result]) -> TaskDefinition[Params, Result]:
        try:
            params, result = _models(work)
            for problem in _problems(name, title, queue, soft_limit_s, max_attempts, aliases):
                raise TaskDeclarationError(problem)
            for problem in (*_field_problems(params), *_field_problems(result)):
                raise TaskDeclarationError(problem)
            for word in _NOT_RESULTS & set(result.model_fields):
                raise TaskDeclarationError(
                    f"a result has no field {word!r}: raise an error, and the run has failed"
                )
        except TaskDeclarationError as error:
            raise TaskDeclarationError(f"task {name!r} in {work.__module__}: {error}") from error
        declared = TaskDefinition(
            name=name,
            title=title,
            description=inspect.cleandoc(work.__doc__ or ""),
            work=work,
            params=params,
            result=result,
            queue=queue,
            soft_limit_s=soft_limit_s,
            overlap=Overlap(overlap),
            overlap_key=overlap_key,
            max_attempts=max_attempts,
            has_dry_run=dry_run,
            only_failed=only_failed,
            aliases=aliases,
        )
        _catalogue[name] = declared
        _by_alias.update(dict.fromkeys(aliases, declared))
        return declared

    return declare


def _models(work: Work[Params, Result]) -> tuple[type[Params], type[Result]]:
    if not (work.__doc__ or "").strip():
        raise TaskDeclarationError("its function has no docstring, which operators read")
    names = list(inspect.signature(work).parameters)
    hints = get_type_hints(work)
    if len(names) != 2:
        raise TaskDeclarationError("its function must take (ctx, params)")
    params, result = hints.get(names[1]), hints.get("return")
    if not (isinstance(params, type) and issubclass(params, TaskParams)):
        raise TaskDeclarationError("its second argument must be annotated with a TaskParams class")
    if not (isinstance(result, type) and issubclass(result, TaskResult)):
        raise TaskDeclarationError("its return type must be a TaskResult class")
    return params, result  # type: ignore[return-value]


def _problems(
    name: str,
    title: str,
    queue: str,
    soft_limit_s: int,
    max_attempts: int,
    aliases: tuple[str, ...],
) -> Iterator[str]:
    for one in (name, *aliases):
        if not _NAME.fullmatch(one) or len(one) > _NAME_MAX:
            yield f"{one!r} is no name: write area.verb, in lower case"
        if one in _catalogue or one in _by_alias:
            yield f"the name {one!r} is taken by {find(one).module}"
    if not title.strip():
        yield "it has no title"
    if queue not in QUEUES:
        yield f"there is no queue {queue!r}; there are {', '.join(QUEUES)}"
    if not 1 <= soft_limit_s <= MAX_SOFT_LIMIT_S:
        yield f"its soft limit must be between 1 and {MAX_SOFT_LIMIT_S} seconds"
    if not 1 <= max_attempts <= 100:
        yield "it must have 1 to 100 attempts"


def _field_problems(model: type[BaseModel]) -> Iterator[str]:
    is_params = issubclass(model, TaskParams)
    for field_name, field in model.model_fields.items():
        if is_params and not field.description:
            yield f"{model.__name__}.{field_name} has no description"
        if field.is_required():
            continue
        try:
            only: Any = {field_name: (field.annotation, field)}
            create_model("Default", __base__=_Checked, **only)()
        except ValidationError as error:
            yield f"the default of {model.__name__}.{field_name} does not validate: {error}"
    try:
        model.model_json_schema(mode="serialization")
    except Exception as error:  # noqa: BLE001 - whatever Pydantic raises, it cannot be JSON
        yield f"{model.__name__} is not JSON: {error}"


class _Checked(BaseModel):
    model_config = ConfigDict(validate_default=True)
