from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any, assert_type

import pytest
from asgiref.sync import iscoroutinefunction
from django.utils.functional import cached_property

from django_tasksets import (
    AsyncResult,
    InvalidOption,
    MaxRetriesExceeded,
    Progress,
    Retry,
    Task,
    TaskAlreadyRegistered,
    TaskSet,
    TaskSetResult,
    codec,
    registry,
    subtask,
    task,
)
from django_tasksets.calls import RetryPlan
from django_tasksets.context import Request, current_request
from tests.tasks import aadd, add


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Tasks that a test defines are gone after it."""
    before = set(registry.names())
    yield
    for name in set(registry.names()) - before:
        registry.unregister(name)


@pytest.fixture
def executing() -> Iterator[Request]:
    """The task named `t` is being executed."""
    request = Request(task="t", retries=1, max_retries=3, args=(1,), kwargs={"x": 2})
    token = current_request.set(request)
    yield request
    current_request.reset(token)


def one(x: int, y: str = "") -> str:
    """One."""
    return f"{x}{y}"


# The decorator


def test_a_decorated_function_is_called_as_before() -> None:
    made = task(one)
    assert made(1, y="a") == "1a"
    assert isinstance(made, Task)
    assert registry.get(f"{__name__}.one") is made


def test_it_keeps_its_name_and_its_documentation() -> None:
    made: Any = task(one)
    assert (made.__name__, made.__doc__, made.__module__) == ("one", "One.", __name__)
    assert made.__wrapped__ is one
    assert inspect.signature(made) == inspect.signature(one)
    assert made.name == f"{__name__}.one"


def test_options_become_attributes() -> None:
    made = task(name="t", queue="q", priority=5, max_retries=None, default_retry_delay=1)(one)
    assert (made.name, made.queue, made.priority) == ("t", "q", 5)
    assert (made.max_retries, made.default_retry_delay) == (None, 1)
    assert repr(made) == "<task: t>"


def test_what_is_not_said_is_a_setting(settings: Any) -> None:
    made = task(one)
    assert (made.max_retries, made.default_retry_delay, made.time_limit) == (3, 180, None)
    settings.TASKSETS = {"MAX_RETRIES": 7, "RETRY_DELAY": 1, "TIME_LIMIT": 9, "SOFT_TIME_LIMIT": 8}
    assert (made.max_retries, made.default_retry_delay) == (7, 1)
    assert (made.time_limit, made.soft_time_limit) == (9, 8)
    assert type(made).max_retries == 7


def test_a_bound_function_gets_the_task() -> None:
    def bound(self: Task, x: int) -> tuple[str, int]:
        return self.name, x

    assert task(bind=True, name="t")(bound)(3) == ("t", 3)


def test_options_of_celery_have_no_effect() -> None:
    made = task(name="t", ignore_result=True, accept_magic_kwargs=False)(one)  # type: ignore[call-overload]
    assert made(1) == "1"


def test_a_misspelt_option_is_refused_with_advice() -> None:
    with pytest.raises(InvalidOption, match="'priorty'; did you mean 'priority'"):
        task(priorty=1)(one)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        task(serialiser="json")(one)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 101},
        {"priority": "high"},
        {"queue": "no spaces"},
        {"max_retries": -1},
        {"time_limit": 0},
        {"expires": -1},
        {"name": ""},
        {"name": "x" * 256},
        {"name": 5},
        {"autoretry_for": ("ValueError",)},
        {"default_retry_delay": -1},
        {"retry_backoff": "yes"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        task(**options)(one)
    assert f"{__name__}.one" not in set(registry.names())


@pytest.mark.parametrize("nothing", ["name", Task, add, 5])
def test_only_functions_are_decorated(nothing: Any) -> None:
    with pytest.raises(InvalidOption, match="decorates functions"):
        task(nothing)


def test_two_tasks_cannot_have_one_name() -> None:
    task(name="t")(one)
    with pytest.raises(TaskAlreadyRegistered):
        task(name="t")(lambda: None)
    task(name="t")(one)  # a reload


def test_an_async_function_is_known_to_be_one() -> None:
    assert aadd.is_async
    assert not add.is_async
    assert iscoroutinefunction(aadd)
    assert not iscoroutinefunction(add)
    assert aadd.apply((1, 2)).get() == 3


def test_an_async_function_cannot_be_atomic() -> None:
    async def later() -> None: ...

    with pytest.raises(InvalidOption, match="atomic"):
        task(atomic=True)(later)


def only_for_the_type_checker() -> None:
    made = task(one)
    assert_type(made(1), str)
    assert_type(made.delay(1, "x"), AsyncResult[str])
    assert_type(made.delay(1).get(), str)
    assert_type(task(name="t")(one).apply((1,)).get(), str)
    made.delay("x")  # type: ignore[arg-type]
    made.delay()  # type: ignore[call-arg]
    add.s(1, 2).delay().get()
    TaskSet([add.s(1, 2), dict(add.s(1, 2))], on_success=add.s(1), on_finish=add.s(2))


async def only_for_the_type_checker_too() -> None:
    made = task(one)
    assert_type(await made.adelay(1, "x"), AsyncResult[str])
    assert_type(await (await made.adelay(1)).aget(), str)
    assert_type(await AsyncResult("x").aready(), bool)
    assert_type(await TaskSetResult("x").aprogress(), Progress)
    await made.adelay("x")  # type: ignore[arg-type]


# Classes


def test_a_class_with_run_is_registered() -> None:
    class Double(Task):
        def run(self, x: int) -> int:
            return 2 * x

    double = registry.get(f"{__name__}.Double")
    assert double(4) == 8
    assert Double() is double
    assert subtask(Double, (4,)).apply().get() == 8


def test_an_abstract_class_is_not() -> None:
    class Base(Task):
        abstract = True
        queue = "slow"

    assert f"{__name__}.Base" not in set(registry.names())
    with pytest.raises(TypeError, match="abstract"):
        Base()

    class Concrete(Base):
        def run(self) -> None: ...

    assert Concrete().queue == "slow"
    assert not Concrete.abstract


def test_a_base_is_shared_and_an_instance_is_not() -> None:
    class Base(Task):
        abstract = True
        accept_magic_kwargs = False

        @cached_property
        def connection(self) -> object:
            return object()

    first = task(base=Base, name="first")(one)
    second = task(base=Base, name="second")(one)
    assert isinstance(first, Base)
    assert isinstance(second, Base)
    assert first.connection is first.connection
    assert first.connection is not second.connection


def test_a_class_without_run_says_so_when_it_is_called() -> None:
    class Empty(Task):
        pass

    with pytest.raises(NotImplementedError, match="Empty"):
        Empty()()


def test_a_class_may_say_its_types() -> None:
    class Typed(Task[[int], str]):
        abstract = True

    class Spelled(Typed):
        def run(self, x: int) -> str:
            return str(x)

    assert Spelled()(3) == "3"


def test_init_runs_once() -> None:
    class Counted(Task):
        def __init__(self) -> None:
            self.count = getattr(self, "count", 0) + 1

    assert Counted().count == Counted().count == 1


def test_tasks_are_not_stored_by_accident() -> None:
    with pytest.raises(TypeError):
        codec.encode(add)


# The request


def test_outside_of_a_subtask_the_request_is_empty() -> None:
    assert add.request.called_directly
    assert (add.request.id, add.request.taskset, add.request.retries) == (None, None, 0)


def test_inside_it_is_the_execution(executing: Request) -> None:
    made = task(name="t")(one)
    assert made.request is executing
    assert add.request.called_directly  # a plain call of another task


# Retrying


def test_retry_raises_its_plan(executing: Request) -> None:
    made = task(name="t")(one)
    cause = ValueError("why")
    with pytest.raises(Retry) as caught:
        made.retry((5,), {"x": 6}, countdown=7, exc=cause)
    assert caught.value.plan == RetryPlan(args=(5,), kwargs={"x": 6}, delay=7)
    assert caught.value.cause is caught.value.__cause__ is cause


def test_retry_keeps_the_arguments_unless_there_are_others(executing: Request) -> None:
    made = task(name="t")(one)
    assert made.retry(throw=False).plan == RetryPlan()


def test_retry_knows_the_exception_that_is_being_handled(executing: Request) -> None:
    made = task(name="t")(one)
    cause: BaseException | None = None
    try:
        int("x")
    except ValueError:
        cause = made.retry(throw=False).cause
    assert isinstance(cause, ValueError)


def test_retries_end(executing: Request) -> None:
    made = task(name="t")(one)
    executing.retries = 3
    with pytest.raises(MaxRetriesExceeded, match="3 times"):
        made.retry()
    with pytest.raises(ValueError, match="mine"):
        made.retry(exc=ValueError("mine"), throw=False)
    assert isinstance(made.retry(max_retries=4, throw=False), Retry)
    executing.max_retries = None
    assert isinstance(made.retry(throw=False), Retry)
    with pytest.raises(MaxRetriesExceeded):
        made.retry(max_retries=2)


def test_retry_refuses_what_cannot_be(executing: Request) -> None:
    made = task(name="t")(one)
    with pytest.raises(InvalidOption, match="countdown"):
        made.retry(countdown=-1)
    with pytest.raises(InvalidOption, match="delay"):
        made.retry(delay=1)
    made.retry(routing_key="x", throw=False)


# Hooks


def hooked(calls: list[Any], broken: str = "") -> type[Task]:
    class Hooked(Task):
        abstract = True

        def _note(self, name: str, *args: Any) -> None:
            calls.append((name, self.request.id is not None, *args[:-1], str(args[-1])))
            if name == broken:
                raise RuntimeError(name)

        def on_success(self, *args: Any) -> None:
            self._note("on_success", *args, None)

        def on_failure(self, *args: Any) -> None:
            self._note("on_failure", *args)

        def on_retry(self, *args: Any) -> None:
            self._note("on_retry", *args)

        def after_return(self, *args: Any) -> None:
            self._note("after_return", *args)

    return Hooked


def test_hooks_are_called_with_what_celery_calls_them_with() -> None:
    calls: list[Any] = []
    made = task(name="t", base=hooked(calls))(one)
    result = made.apply((1,), {"y": "b"})
    call = (result.id, (1,), {"y": "b"})
    assert calls == [
        ("on_success", True, "1b", *call, "None"),
        ("after_return", True, "SUCCESS", "1b", *call, "None"),
    ]


def test_hooks_are_told_of_failures_and_retries() -> None:
    calls: list[Any] = []

    def fails(x: int) -> None:
        raise ValueError(x)

    made = task(name="t", base=hooked(calls), autoretry_for=(ValueError,), max_retries=1)(fails)
    error = made.apply((1,)).result
    assert [call[0] for call in calls] == ["on_retry", "after_return", "on_failure", "after_return"]
    assert [call[2] for call in calls if call[0] == "after_return"] == ["RETRY", "FAILURE"]
    assert calls[2][2] is error
    assert "ValueError: 1" in calls[2][-1]  # the traceback


def test_a_raising_hook_is_logged_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[Any] = []
    made = task(name="t", base=hooked(calls, broken="on_success"))(one)
    with caplog.at_level(logging.ERROR, "django_tasksets"):
        assert made.apply((1,)).get() == "1"
    assert [call[0] for call in calls] == ["on_success", "after_return"]
    assert "on_success" in caplog.text
    assert "RuntimeError" in caplog.text


def test_a_task_without_hooks_says_so() -> None:
    assert not task(name="t")(one).has_hooks
    assert task(name="u", base=hooked([]))(one).has_hooks


def test_hooks_are_not_async() -> None:
    with pytest.raises(InvalidOption, match="async"):

        class Wrong(Task):
            async def on_success(self, *args: Any) -> None:  # type: ignore[override]
                ...
