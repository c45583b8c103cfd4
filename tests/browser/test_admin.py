"""The admin in a browser: what moves by itself, what buttons do, what the eye sees."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from django.contrib.sessions.models import Session
from django.contrib.staticfiles import finders
from django.utils import timezone

from django_tasksets import TaskSet
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import Role
from django_tasksets.testing import run_subtasks
from tests.database.admin_pages import (
    ATTACK,
    SETS,
    SUBTASKS,
    list_url,
    make_callback,
    make_set,
    make_worker,
    page_url,
)
from tests.tasks import add, fail

pytestmark = pytest.mark.django_db(transaction=True)

# What a strict site demands: nothing inline, and nothing from elsewhere.
POLICY = "default-src 'self'"


def sets(key):
    return TaskSetRecord.objects.filter(pk=key)


def wait(page, script, argument=None):
    """Until the script says true."""
    page.wait_for_function(script, arg=argument)


BAR_AT = "value => document.querySelector('progress').value === value"


# What moves


@pytest.mark.parametrize("where", ["list", "page", "subtasks"])
def test_the_bar_moves_without_loading_the_page_again(visit, where):
    taskset = make_set(["READY"] * 10, name="Resize")
    page = visit.go(
        {
            "list": list_url(SETS),
            "page": page_url(SETS, taskset.pk),
            "subtasks": f"{list_url(SUBTASKS)}?taskset={taskset.pk}",
        }[where]
    )
    assert page.locator("progress").evaluate("bar => [bar.value, bar.max]") == [0, 10]

    sets(taskset.pk).update(remaining=6, successful=3, failed=1)

    visit.pass_time(2)
    wait(page, BAR_AT, 4)
    assert page.get_by_role("progressbar", name="Progress of Resize").text_content() == "40%"
    assert "4 of 10" in page.inner_text("#content")
    assert page.locator("[data-tasksets-field=failed]").inner_text() == "1"
    assert not visit.was_loaded_anew()
    assert visit.complaints == []


def test_a_set_that_finishes_says_so_and_is_asked_about_no_more(visit):
    taskset = make_set(["READY"] * 4)
    page = visit.go(page_url(SETS, taskset.pk))
    assert page.get_by_role("button", name="Pause").is_visible()
    assert not page.get_by_role("link", name="Delete…").is_visible()

    sets(taskset.pk).update(
        remaining=0, successful=3, failed=1, status="FAILED", finished_at=timezone.now()
    )

    visit.pass_time(2)
    page.wait_for_selector(".tasksets-head .tasksets-status[data-tasksets-state=failed]")
    assert page.locator(".tasksets-head .tasksets-word").inner_text() == "Failed"
    # The buttons that would do something now, and a hint that the tables are older than that.
    assert not page.get_by_role("button", name="Pause").is_visible()
    assert page.get_by_role("link", name="Delete…").is_visible()
    assert page.get_by_role("button", name="Retry failed").is_visible()
    assert page.locator("[data-tasksets-stale]").is_visible()
    asked = len(visit.asked)
    visit.pass_time(600)
    assert len(visit.asked) == asked
    assert visit.complaints == []


def test_nobody_asks_about_what_is_finished(visit):
    taskset = make_set(["SUCCESSFUL"])
    visit.go(list_url(SETS))
    visit.pass_time(600)
    visit.go(page_url(SETS, taskset.pk))
    visit.pass_time(600)

    assert visit.asked == []


def test_callbacks_are_watched_when_the_set_has_finished(visit):
    taskset = make_set(["SUCCESSFUL"])
    callback = make_callback(taskset, Role.ON_SUCCESS, "RUNNING")
    page = visit.go(page_url(SETS, taskset.pk))

    SubtaskRecord.objects.filter(pk=callback.pk).update(status="SUCCESSFUL")

    visit.pass_time(2)
    page.wait_for_selector(
        f"[data-tasksets-subtask='{callback.pk}'] [data-tasksets-state=successful]"
    )


def test_screen_readers_are_told_at_quarters_only(visit):
    taskset = make_set(["READY"] * 100)
    page = visit.go(page_url(SETS, taskset.pk))
    said = page.get_by_role("status")

    for finished, words in ((10, ""), (20, ""), (30, "Running: 30% – 30 of 100")):
        sets(taskset.pk).update(remaining=100 - finished, successful=finished)
        visit.pass_time(2)
        wait(page, BAR_AT, finished)
        assert said.text_content() == words


def test_a_page_that_nobody_sees_asks_nothing(visit):
    taskset = make_set(["READY"] * 10)
    page = visit.go(page_url(SETS, taskset.pk))
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""

    page.evaluate(hide, True)
    visit.pass_time(600)
    assert visit.asked == []
    page.evaluate(hide, False)

    sets(taskset.pk).update(remaining=5, successful=5)
    visit.pass_time(2)
    wait(page, BAR_AT, 5)


def test_who_is_signed_out_is_told_that_the_page_stands_still(visit):
    taskset = make_set(["READY"])
    page = visit.go(page_url(SETS, taskset.pk))

    Session.objects.all().delete()

    visit.pass_time(2)
    page.wait_for_selector("[data-tasksets-lost]", state="visible")
    asked = len(visit.asked)
    visit.pass_time(600)
    assert len(visit.asked) == asked


def test_a_site_that_stumbles_is_asked_again(visit):
    taskset = make_set(["READY"] * 2)
    page = visit.go("/admin/")
    answers = [lambda route: route.fulfill(status=500), lambda route: route.abort()]

    def answer(route):
        if answers:
            answers.pop()(route)
        else:
            route.continue_()

    page.route("**/progress.json*", answer)
    visit.go(page_url(SETS, taskset.pk))
    sets(taskset.pk).update(remaining=1, successful=1)

    while len(visit.asked) < 3:
        visit.pass_time(10)
    wait(page, BAR_AT, 1)
    assert not page.locator("[data-tasksets-lost]").is_visible()


# Buttons


@pytest.mark.parametrize("scripts", [True, False])
def test_buttons_work_with_and_without_scripts(new_visit, scripts):
    key = uuid.UUID(TaskSet([fail.subtask(), add.subtask((1, 1))]).apply_async().taskset_id)
    visit = new_visit(java_script_enabled=scripts)
    page = visit.page
    page.goto(visit.address + page_url(SETS, key))

    page.get_by_role("button", name="Pause").click()
    assert "1 task set paused." in page.inner_text(".messagelist")
    page.get_by_role("button", name="Resume").click()
    assert "1 task set resumed." in page.inner_text(".messagelist")
    run_subtasks()
    page.reload()
    page.get_by_role("button", name="Retry this group").click()
    assert "1 subtask retried." in page.inner_text(".messagelist")
    page.get_by_role("link", name="Revoke…").click()
    page.get_by_label("Reason, shown with everything that is revoked:").fill("not today")
    page.get_by_role("button", name="Yes, I’m sure").click()
    assert "1 subtask revoked." in page.inner_text(".messagelist")
    assert SubtaskRecord.objects.get(taskset_id=key, status="REVOKED").reason == "not today"
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("link", name="No, take me back").click()
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("button", name="Yes, I’m sure").click()
    assert "1 task set deleted." in page.inner_text(".messagelist")
    assert not TaskSetRecord.objects.exists()


def test_many_are_chosen_from_a_list_and_asked_about(visit):
    for number in range(3):
        make_set(["READY"], name=f"Set {number}")
    page = visit.go(list_url(SETS))

    page.get_by_role("checkbox").first.check()
    page.get_by_label("Action:").select_option("revoke_selected")
    page.get_by_role("button", name=re.compile("Go|Run")).click()
    assert "Set 1" in page.inner_text("#content")
    page.get_by_role("button", name="Yes, I’m sure").click()

    assert "3 task sets revoked, 3 subtasks revoked." in page.inner_text(".messagelist")
    assert set(TaskSetRecord.objects.values_list("status", flat=True)) == {"REVOKED"}
    assert visit.complaints == []


# The eye, and the content policy


def everywhere(taskset, row, worker):
    return [
        list_url(SETS),
        page_url(SETS, taskset.pk),
        f"{list_url(SUBTASKS)}?taskset={taskset.pk}",
        page_url(SUBTASKS, row.pk),
        list_url("workerrecord"),
        page_url("workerrecord", worker.pk),
        page_url(SETS, taskset.pk, "revoke"),
    ]


def test_pages_work_under_a_strict_content_policy_and_run_nothing_of_the_data(visit):
    taskset = make_set(["READY", "FAILED"], name=ATTACK)
    row = SubtaskRecord.objects.get(taskset=taskset, status="FAILED")
    SubtaskRecord.objects.update(task_name=ATTACK, reason=ATTACK)
    worker = make_worker(host=ATTACK)

    def strict(route):
        response = route.fetch()
        route.fulfill(
            response=response, headers={**response.headers, "Content-Security-Policy": POLICY}
        )

    visit.page.route("**/tasksets/**", strict)
    for path in everywhere(taskset, row, worker):
        visit.go(path)
        # A policy that forbade our style would show here.
        media = "document.styleSheets.length > 3"
        assert visit.page.evaluate(media), path
    page = visit.go(page_url(SETS, taskset.pk))
    sets(taskset.pk).update(remaining=0, successful=1, status="FAILED", name=ATTACK)
    visit.pass_time(2)
    wait(page, BAR_AT, 2)

    assert page.locator("img[src=x]").count() == 0
    assert visit.complaints == []


def test_our_script_makes_no_markup():
    """Trusted types could not be demanded of the admin, whose jQuery does; of ours they could."""
    found = finders.find("tasksets/admin.js")
    script = Path(str(found)).read_text()

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(", script
    )


LOOK = """() => {
    const style = element => getComputedStyle(document.querySelector(element));
    return [style(".tasksets-head").backgroundColor, style(".tasksets-word").color,
            style("body").backgroundColor];
}"""


@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize("chosen", ["light", "dark", "auto"])
def test_dark_is_dark_whether_the_system_or_the_user_wants_it(new_visit, system, chosen):
    taskset = make_set(["FAILED"])
    visit = new_visit(color_scheme=system)
    page = visit.go(page_url(SETS, taskset.pk))
    page.evaluate("chosen => localStorage.setItem('theme', chosen)", chosen)
    page.reload()

    ground, word, body = (_brightness(colour) for colour in page.evaluate(LOOK))

    dark = chosen == "dark" or (chosen == "auto" and system == "dark")
    assert (body < 0.5) == dark
    assert (ground < 0.5) == dark
    # Enough contrast to be read, as WCAG has it.
    assert _contrast(word, ground) >= 4.5


def _brightness(colour):
    """The relative luminance of a CSS colour `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


@pytest.mark.parametrize("width", [1280, 420])
def test_no_page_is_wider_than_the_screen(new_visit, width):
    taskset = make_set(["READY"] * 3 + ["FAILED"] * 3, name="Resize 1,204 photos")
    row = SubtaskRecord.objects.filter(taskset=taskset, status="FAILED").first()
    visit = new_visit(viewport={"width": width, "height": 800})

    for path in everywhere(taskset, row, make_worker(host="worker-1")):
        page = visit.go(path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, path
