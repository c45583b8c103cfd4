"""Turns calls into rows: checks them, applies the tasks' defaults, encodes the values."""

from __future__ import annotations

import copy
import datetime
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Final, TypedDict, cast

from django.utils import timezone

from . import codec, registry
from .calls import Call, Options, Seconds
from .checking import CHECKS, is_number
from .conf import current
from .exceptions import (
    InvalidCall,
    InvalidId,
    InvalidOption,
    NotStorable,
    UnknownTask,
    UnreadableValue,
)
from .ids import hex_ids, parse_id
from .options import refuse_unknown, stored_options
from .statuses import Role, SubtaskStatus, callback_position
from .store.contract import NewSubtask, Store

CALL_KEYS: Final = frozenset(Call.__required_keys__)
OPTION_NAMES: Final = frozenset(Options.__optional_keys__)
# Options for which None is a value, not "as by default".
NULLABLE: Final = frozenset({"max_retries", "time_limit", "soft_time_limit"})
# Options that are read when the subtask executes, and have no column of their own.
STORED_OPTIONS: Final = ("max_retries", "time_limit", "soft_time_limit", "immutable")
# Options of a callback that count from its release, when they are seconds.
SPANS: Final = ("countdown", "expires")
# How much later in the claim order each next member of a set is, in microseconds.
CLAIM_STEP: Final = 1_000_000
# Options that have a column of their own, and a check.
PLANNED: Final = ("queue", "priority", "weight", "countdown", "eta", "expires")
SHAPES: Final[dict[str, Any]] = {
    "task": str,
    "args": (list, tuple),
    # A dict is a Mapping, but to find that out takes much longer.
    "kwargs": (dict, Mapping),
    "options": (dict, Mapping),
}
SHAPE_WORDS: Final = {
    "task": "the name of a task",
    "args": "a list or a tuple",
    "kwargs": "a dict",
    "options": "a dict",
}
# As rows have them: an enumeration takes its time to say what its members are.
MEMBER: Final = Role.MEMBER.value
READY: Final = SubtaskStatus.READY.value
SCHEDULED: Final = SubtaskStatus.SCHEDULED.value
# How much of a wrong value is shown, in characters.
SHOWN: Final = 200


@dataclass(slots=True, kw_only=True)
class Plan:
    """Everything about a call but its task and arguments, with the task's defaults applied."""

    queue: str
    priority: int
    weight: int = 1
    task_id: str | None = None
    """32 hexadecimal digits."""
    countdown: Seconds | None = None
    eta: datetime.datetime | None = None
    expires: Seconds | datetime.datetime | None = None
    options: str = ""
    """STORED_OPTIONS, as JSON."""
    links: dict[str, list[Link]] = field(default_factory=dict)


class Link(TypedDict):
    """A call in the column `links`. It can be enqueued without its task, and undecoded: who
    records a result knows neither all tasks nor all classes."""

    task: str
    args: str
    kwargs: str
    plan: dict[str, Any]
    """Plan, with times as text."""


class Packer:
    """Makes the rows of one set, or of subtasks of their own, that are enqueued at one moment."""

    def __init__(self, store: Store, *, taskset_id: uuid.UUID | None = None) -> None:
        self.now = timezone.now()
        self._store = store
        self._taskset_id = None if taskset_id is None else taskset_id.hex
        self._claim_order = int(self.now.timestamp() * 1_000_000)
        self._defaults: dict[str, Plan] = {}
        self._new_ids = hex_ids()

    def for_set(self, taskset_id: uuid.UUID, ahead: int) -> Packer:
        """One for another set that is enqueued at the same moment, and is claimed after `ahead`
        members of this one's: of one set after another each is made from the last."""
        other = copy.copy(self)
        other._taskset_id = taskset_id.hex
        other._claim_order += ahead * CLAIM_STEP
        return other

    def member(self, call: Call, position: int | None, where: str = "subtask") -> NewSubtask:
        """A row that is READY or SCHEDULED. Without a position it belongs to no set.

        Raises InvalidCall, InvalidOption, InvalidId, NotStorable or UnknownTask; each says where.
        """
        args, kwargs, plan = self._checked(call, where)
        return self._row(call["task"], args, kwargs, plan, position)

    def callback(self, call: Call, role: Role) -> NewSubtask:
        """A row that is WAITING for its set to finish. Raises what member() does.

        Seconds that it is given as its countdown or expiry count from then: see completion.
        """
        args, kwargs, plan = self._checked(call, role.value.lower())
        spans = {name: value for name in SPANS if is_number(value := getattr(plan, name))}
        if spans:
            stored = json.loads(plan.options) if plan.options else {}
            changes: dict[str, Any] = {
                "options": json.dumps(stored | spans),
                **dict.fromkeys(spans),
            }
            plan = replace(plan, **changes)
        return self._row(call["task"], args, kwargs, plan, None)._replace(
            role=role.value, position=callback_position(role, 1), status=SubtaskStatus.WAITING
        )

    def linked(self, link: Link, first: str) -> NewSubtask:
        """The row of a link, which belongs to no set; its first argument has the text `first`.

        Raises UnreadableValue, or what looking at a value of any kind may raise, for one that
        was not written by us: no row must come of it that nobody can read.
        """
        plan, args = _plan_of(link), link["args"]
        if not stored_options(plan.options).get("immutable"):
            args = codec.prepend(first, args)
        return self._row(link["task"], args, link["kwargs"], plan, None)

    def at(self, row: NewSubtask, position: int, generation: int) -> NewSubtask:
        """The member at another position of its set, in another generation."""
        order = self._claim_order + position * CLAIM_STEP
        return row._replace(position=position, generation=generation, claim_order=order)

    def _row(
        self, name: str, args: str, kwargs: str, plan: Plan, position: int | None
    ) -> NewSubtask:
        run_after = self._run_after(plan)
        is_later = run_after is not None and run_after > self._clock
        return NewSubtask(
            id=plan.task_id or next(self._new_ids),
            taskset_id=self._taskset_id,
            role=MEMBER,
            position=position,
            generation=1,
            weight=plan.weight,
            task_name=name,
            args=args,
            kwargs=kwargs,
            options=plan.options,
            links=json.dumps(plan.links, default=_time_as_text) if plan.links else "",
            queue_name=plan.queue,
            priority=plan.priority,
            claim_order=self._claim_order + (position or 0) * CLAIM_STEP,
            run_after=run_after,
            expires_at=self._moment(plan.expires),
            status=SCHEDULED if is_later else READY,
            enqueued_at=self.now,
        )

    # Times

    @cached_property
    def _clock(self) -> datetime.datetime:
        """The database's time, which every other time is compared with."""
        return self._store.now()

    def _run_after(self, plan: Plan) -> datetime.datetime | None:
        # An eager subtask does not wait for its time: nobody would come back for it.
        if (plan.eta is None and plan.countdown is None) or current().ALWAYS_EAGER:
            return None
        return self._moment(plan.countdown) or plan.eta

    def _moment(self, value: float | datetime.datetime | None) -> datetime.datetime | None:
        if value is None or isinstance(value, datetime.datetime):
            return value
        return self._clock + datetime.timedelta(seconds=value)

    # Checks

    def _checked(self, call: Call, where: str) -> tuple[str, str, Plan]:
        """The texts of the arguments, and the plan."""
        check_call(call, where)
        try:
            plan = self._defaults.get(call["task"]) or self._look_up(call["task"])
            if call["options"]:
                plan = self._with_options(plan, call["options"], where)
            return codec.encode_args(call["args"]), codec.encode_kwargs(call["kwargs"]), plan
        except (InvalidId, NotStorable, UnknownTask) as error:
            if not str(error).startswith(where):
                error.args = (f"{where}: {error}",)
            raise

    def _look_up(self, name: str) -> Plan:
        task = registry.get(name)
        queue = checked_queue(task.queue or current().DEFAULT_QUEUE, name)
        plan = Plan(queue=queue, priority=task.priority, expires=task.expires)
        self._defaults[name] = plan
        return plan

    def _with_options(self, defaults: Plan, options: Mapping[str, Any], where: str) -> Plan:
        checked: Mapping[str, Any] = checked_options(options, where)
        stored = {name: checked[name] for name in STORED_OPTIONS if name in checked}
        task_id = checked.get("task_id")
        return Plan(
            queue=checked.get("queue", defaults.queue),
            priority=checked.get("priority", defaults.priority),
            weight=checked.get("weight", 1),
            task_id=None if task_id is None else parse_id(task_id).hex,
            countdown=checked.get("countdown"),
            eta=checked.get("eta"),
            expires=checked.get("expires", defaults.expires),
            options=json.dumps(stored) if stored else "",
            links=self._links(checked, where),
        )

    def _links(self, options: Mapping[str, Any], where: str) -> dict[str, list[Link]]:
        links: dict[str, list[Link]] = {}
        for name in ("link", "link_error"):
            given = options.get(name)
            if given is None:
                continue
            calls: Any = [given] if isinstance(given, Mapping) else given
            if isinstance(calls, str) or not isinstance(calls, Iterable):
                raise InvalidCall(f"{where}: {name} is a subtask or a list of them")
            if made := [self._link(call, f"{where}: {name}") for call in calls]:
                links[name] = made
        if links and len(json.dumps(links, default=_time_as_text)) > current().MAX_VALUE_BYTES:
            raise NotStorable("takes more than MAX_VALUE_BYTES; store it elsewhere", path="links")
        return links

    def _link(self, call: Call, where: str) -> Link:
        args, kwargs, plan = self._checked(call, where)
        return Link(task=call["task"], args=args, kwargs=kwargs, plan=asdict(plan))


def _plan_of(link: Link) -> Plan:
    """The plan of a stored link, held to the rules for new ones."""
    texts = (link["task"], link["args"], link["kwargs"])
    plan = Plan(**link["plan"])
    if not all(isinstance(text, str) for text in (*texts, plan.options)):
        raise UnreadableValue("A link's task, arguments and options are texts")
    for name in ("eta", "expires"):
        if isinstance(text := getattr(plan, name), str):
            setattr(plan, name, datetime.datetime.fromisoformat(text))
    for name in PLANNED:
        passes, expected = CHECKS[name]
        value = getattr(plan, name)
        if value is not None and not passes(value):
            raise UnreadableValue(f"The link's {name}={value!r:.80} is not possible: {expected}")
    if plan.task_id is not None:
        plan.task_id = parse_id(plan.task_id).hex
    return plan


def _time_as_text(value: object) -> str:
    assert isinstance(value, datetime.datetime)
    return value.isoformat()


def check_call(call: Any, where: str) -> None:
    """Raise InvalidCall unless `call` has the shape of calls.Call."""
    if not isinstance(call, dict):
        raise InvalidCall(f"{where}: expected a subtask, got {_shown(call)}; make one by subtask()")
    if call.keys() != CALL_KEYS:
        missing, extra = sorted(CALL_KEYS - call.keys()), sorted(map(str, call.keys() - CALL_KEYS))
        raise InvalidCall(
            f"{where}: a subtask has the keys task, args, kwargs and options; "
            f"missing: {missing or 'none'}, not known: {extra or 'none'}"
        )
    if (
        # As subtask() makes them: to ask for what is like that takes several times as long.
        type(call["task"]) is str
        and type(call["args"]) is tuple
        and type(call["kwargs"]) is dict
        and type(call["options"]) is dict
    ):
        return
    for key, shape in SHAPES.items():
        if not isinstance(call[key], shape):
            raise InvalidCall(f"{where}: {key}={_shown(call[key])} is not {SHAPE_WORDS[key]}")


def checked_options(options: Mapping[str, Any], where: str) -> Options:
    """The options that mean something, checked; raises InvalidOption."""
    refuse_unknown(map(str, options), where, known=OPTION_NAMES)
    checked: dict[str, Any] = {}
    for name in OPTION_NAMES & options.keys():
        value = options[name]
        if value is None and name not in NULLABLE:
            continue
        passes, expected = CHECKS.get(name, (None, ""))
        if passes is not None and not passes(value):
            raise InvalidOption(f"{where}: {name}={_shown(value)} is not possible: {expected}")
        checked[name] = value
    if "countdown" in checked and "eta" in checked:
        raise InvalidOption(f"{where}: countdown and eta say the same thing; give one of them")
    return cast(Options, checked)


def checked_queue(name: str, where: str) -> str:
    """The queue's name, if it is one; raises InvalidOption."""
    return checked_options({"queue": name}, where)["queue"]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
