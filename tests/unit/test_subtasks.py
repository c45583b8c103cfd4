from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest

from django_tasksets import (
    EagerResult,
    InvalidCall,
    InvalidOption,
    OutsideSubtask,
    Retry,
    UnknownTask,
    codec,
    maybe_subtask,
    subtask,
    task,
)
from tests.tasks import add, echo, fail, retry_until

seen: list[tuple[object, ...]] = []


@task
def see(*args: object) -> None:
    seen.append(args)


def test_is_a_dict_of_exactly_four_keys() -> None:
    s = subtask("tests.tasks.add", args=(2, 2), kwargs={"z": 1}, options={"queue": "q"})
    assert dict(s) == {
        "task": "tests.tasks.add",
        "args": (2, 2),
        "kwargs": {"z": 1},
        "options": {"queue": "q"},
    }
    assert isinstance(s, subtask)


def test_keys_are_attributes_too() -> None:
    s = subtask("tests.tasks.add", (2,))
    s.options["task_id"] = "x"
    s.args = (3,)
    assert s["options"] == {"task_id": "x"}
    assert s["args"] == (3,)
    assert (s.task, s.kwargs) == ("tests.tasks.add", {})
    with pytest.raises(AttributeError):
        s.anything  # type: ignore[attr-defined]  # noqa: B018


def test_positional_arguments_are_those_of_the_guide() -> None:
    assert subtask(add, (1,), {"y": 2}, {"queue": "q"}) == {
        "task": "tests.tasks.add",
        "args": [1],
        "kwargs": {"y": 2},
        "options": {"queue": "q"},
    }


def test_takes_a_name_a_task_or_a_task_class() -> None:
    by_name, by_task, by_class = (subtask(t) for t in ("tests.tasks.add", add, type(add)))
    assert by_name == by_task == by_class
    assert by_name.type is add


def test_a_name_need_not_be_known() -> None:
    s = subtask("somewhere.else")
    with pytest.raises(UnknownTask, match=r"somewhere\.else"):
        s.type  # noqa: B018


def test_further_keyword_arguments_are_for_the_task() -> None:
    assert subtask("a", (), {"x": 1}, y=2).kwargs == {"x": 1, "y": 2}
    assert add.subtask((1,), y=2).kwargs == {"y": 2}


def test_survives_json() -> None:
    s = add.subtask(((1, 2), {"n": (3,)}), {"callback": echo.subtask()}, {"countdown": 3})
    assert subtask(json.loads(json.dumps(s))) == s


def test_equality_ignores_tuples_and_nothing_else() -> None:
    s = subtask("a", ((1, 2),), {"k": (1,)})
    assert s == {"task": "a", "args": [[1, 2]], "kwargs": {"k": [1]}, "options": {}}
    assert s != subtask("a", ((1, 3),), {"k": (1,)})
    assert s != subtask("b", ((1, 2),), {"k": (1,)})
    assert s != "a"


def test_is_no_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(subtask("a"))


def test_a_dict_is_the_whole_call() -> None:
    assert subtask({"task": "a", "args": [1], "kwargs": {}, "options": {}}, (5,), x=1).args == (1,)


def test_copies_what_it_is_made_from() -> None:
    s = subtask("a", [1], {"x": 1}, {"queue": "q"})
    other = subtask(s)
    other.options["queue"] = other.kwargs["x"] = "changed"
    assert (s.options, s.kwargs) == ({"queue": "q"}, {"x": 1})
    assert copy.deepcopy(s) == s


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"task": "a", "args": [], "options": {}}, r"missing: \['kwargs'\]"),
        ({"task": "a", "args": [], "kwargs": {}, "options": {}, "x": 1}, r"not known: \['x'\]"),
        ({"task": 1, "args": [], "kwargs": {}, "options": {}}, "task=1 is not the name of a task"),
        (
            {"task": "a", "args": "no", "kwargs": {}, "options": {}},
            "args='no' is not a list",
        ),
        ({"task": "a", "args": [], "kwargs": [], "options": {}}, "kwargs="),
        ({"task": "a", "args": [], "kwargs": {}, "options": None}, "options=None"),
    ],
)
def test_says_what_is_wrong_with_a_dict(call: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidCall, match=words):
        subtask(call)


def test_says_what_is_wrong_with_arguments() -> None:
    with pytest.raises(InvalidCall, match="args=5"):
        add.subtask(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("nothing", [None, 1, print, lambda: None, object()])
def test_refuses_what_is_no_task(nothing: object) -> None:
    with pytest.raises(InvalidCall, match="is not a task"):
        subtask(nothing)


def test_takes_a_task_of_django_with_what_using_made_of_it() -> None:
    theirs = SimpleNamespace(
        module_path="app.tasks.send", queue_name="mail", priority=5, run_after=None
    )
    s = subtask(theirs, ("x",), options={"priority": 7})
    assert s.task == "app.tasks.send"
    assert s.options == {"queue": "mail", "priority": 7}


def test_given_arguments_come_first_and_given_options_win() -> None:
    s = subtask("a", (10,), {"x": 1, "y": 1}, {"queue": "q", "priority": 1})
    assert s.clone((5,), {"y": 2}, priority=2) == subtask(
        "a", (5, 10), {"x": 1, "y": 2}, {"queue": "q", "priority": 2}
    )
    assert s == subtask("a", (10,), {"x": 1, "y": 1}, {"queue": "q", "priority": 1})


def test_an_immutable_one_ignores_what_is_prepended() -> None:
    assert echo.si(1).clone((5,), {"y": 2}, queue="q") == subtask(
        echo, (1,), {}, {"immutable": True, "queue": "q"}
    )
    assert echo.s(1, x=2) == subtask(echo, (1,), {"x": 2})


def test_maybe_subtask_leaves_everything_else_alone() -> None:
    s = subtask("a")
    assert maybe_subtask(None) is None
    assert maybe_subtask(s) is s
    assert isinstance(maybe_subtask(dict(s)), subtask)


def test_is_stored_with_rich_values_in_it() -> None:
    s = add.subtask((b"x", (1, 2)), {"callback": echo.subtask(({1},))})
    text = codec.encode(s)
    assert codec.decode(text) == s
    assert isinstance(codec.decode(text), subtask)
    assert isinstance(codec.decode(text).kwargs["callback"], subtask)
    assert codec.decode(text).args == (b"x", (1, 2))


def test_apply_executes_here_and_now() -> None:
    result = add.subtask((2,)).apply((4,))
    assert isinstance(result, EagerResult)
    assert (result.get(), result.state, result.status) == (6, "SUCCESS", "SUCCESSFUL")
    assert result.ready()
    assert result.successful()
    assert not result.failed()
    assert result.record is None


def test_apply_keeps_a_failure_unless_it_is_to_be_thrown() -> None:
    result = fail.apply(("oh",))
    assert result.failed()
    assert result.state == "FAILURE"
    assert isinstance(result.result, ValueError)
    assert result.traceback is not None
    assert "ValueError: oh" in result.traceback
    assert result.get(propagate=False) is result.result
    with pytest.raises(ValueError, match="oh"):
        result.get()
    with pytest.raises(ValueError, match="oh"):
        fail.apply(("oh",), throw=True)


def test_apply_retries_at_once() -> None:
    assert retry_until.apply((2,)).get() == 2
    assert retry_until.apply((3,)).state == "FAILURE"
    assert retry_until.apply((5,), max_retries=5).get() == 5


def test_apply_calls_the_links() -> None:
    seen.clear()
    add.apply((1, 2), link=see.subtask(("linked",)))
    result = fail.apply(link=see.subtask(), link_error=[see.subtask(("failed",)), see.si()])
    assert seen == [(3, "linked"), (result, "failed"), ()]


def test_apply_uses_the_given_id() -> None:
    key = "01890a5d-ac96-774b-bcce-b302099a8057"
    assert add.apply((1, 2), task_id=key).id == key


def test_apply_refuses_a_misspelt_option() -> None:
    with pytest.raises(InvalidOption, match="did you mean 'priority'"):
        add.apply((1, 2), priorty=1)
    add.apply((1, 2), priority=1, countdown=10, serializer="json")


def test_keyword_arguments_may_have_any_name() -> None:
    assert echo.s(self=1).apply().get() == [[], {"self": 1}]
    assert echo.subtask(self=1).apply().get() == [[], {"self": 1}]


def test_retry_outside_of_a_subtask_says_so() -> None:
    with pytest.raises(OutsideSubtask):
        retry_until(5)
    assert issubclass(OutsideSubtask, RuntimeError)
    assert not issubclass(OutsideSubtask, Retry)
