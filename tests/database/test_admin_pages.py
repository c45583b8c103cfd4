"""What the admin's pages show, and at which cost."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone

from demo.models import Census
from django_tasksets import TaskSetResult
from django_tasksets.models import ErrorGroupRecord, SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import Role
from tests.database.admin_pages import (
    ATTACK,
    SETS,
    SUBTASKS,
    WORKERS,
    Page,
    list_url,
    make_callback,
    make_set,
    make_subtask,
    make_worker,
    page_url,
    queries_of,
    superuser_client,
)

pytestmark = pytest.mark.django_db
MANY = ["SUCCESSFUL"] * 60 + ["FAILED"] * 40 + ["READY"] * 40


@pytest.fixture
def client():
    return superuser_client()


def get(client, url):
    response = client.get(url)
    assert response.status_code == 200
    return Page(response)


def group_of(taskset, row, **columns):
    now = timezone.now()
    values = {
        "fingerprint": "f",
        "exception_class": "ValueError",
        "message": "on purpose",
        "count": 1,
        "first_seen_at": now,
        "last_seen_at": now,
        "latest_subtask_id": row.pk,
    }
    return ErrorGroupRecord.objects.create(taskset=taskset, **values | columns)


# The list of sets


def test_the_list_shows_each_set_with_its_bar(client):
    owner = get_user_model().objects.create_user("anna")
    taskset = make_set(["SUCCESSFUL", "FAILED", "READY", "RUNNING"], name="Resize", owner=owner)

    page = get(client, list_url(SETS))

    assert page.all("progress") == [
        {
            "class": "tasksets-bar",
            "max": "4",
            "value": "2",
            "data-tasksets-state": "running",
            "aria-label": "Progress of Resize",
        }
    ]
    assert "50%" in page.text
    assert "2 of 4" in page.text
    assert "anna" in page.text
    assert f"{list_url(SUBTASKS)}?taskset={taskset.pk}&status=failed" in page.links()
    assert page_url(SETS, taskset.pk) in page.links()


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({}, "Running"),
        ({"sealed_at": None}, "Open"),
        ({"paused_at": timezone.now()}, "Paused"),
        ({"paused_at": timezone.now(), "revoke_requested_at": timezone.now()}, "Being revoked"),
    ],
)
def test_what_keeps_a_set_from_finishing_is_said_in_place_of_running(client, columns, word):
    taskset = make_set(["READY"], **columns)
    others = make_set(["SUCCESSFUL"])

    key = {"Being revoked": "revoking"}.get(word, word.lower())
    page = get(client, f"{list_url(SETS)}?status={key}")

    assert page.all("span", data_tasksets_state=key)
    assert page_url(SETS, taskset.pk) in str(page.links())
    assert str(others.pk) not in str(page.links())


@pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED", "REVOKED"])
def test_finished_sets_are_found_by_their_status(client, status):
    sets = {each: make_set([each]) for each in ("SUCCESSFUL", "FAILED", "REVOKED", "READY")}

    links = str(get(client, f"{list_url(SETS)}?status={status.lower()}").links())

    assert [each for each, taskset in sets.items() if str(taskset.pk) in links] == [status]


def test_unfinished_sets_are_found_together(client):
    running, paused = make_set(["READY"]), make_set(["READY"], paused_at=timezone.now())
    done = make_set(["FAILED"])

    links = str(get(client, f"{list_url(SETS)}?status=unfinished").links())

    assert str(running.pk) in links
    assert str(paused.pk) in links
    assert str(done.pk) not in links


def test_the_newest_set_comes_first(client):
    now = timezone.now()
    for days in (1, 3, 2):
        make_set(["READY"], name=f"{days} days old", enqueued_at=now - timedelta(days=days))

    text = get(client, list_url(SETS)).text

    assert text.index("1 days old") < text.index("2 days old") < text.index("3 days old")


def test_sets_are_searched_by_id_and_by_how_their_names_begin(client):
    one, other = make_set(["READY"], name="Import A"), make_set(["READY"], name="Export A")

    for term in (str(one.pk), one.pk.hex, "import", " Imp "):
        links = str(client.get(list_url(SETS), {"q": term}).content)
        assert str(one.pk) in links
        assert str(other.pk) not in links
    assert str(one.pk) not in str(client.get(list_url(SETS), {"q": "port"}).content)


def test_a_saved_set_has_no_bar_yet(client):
    TaskSetResult("11111111-1111-4111-8111-111111111111", [str(make_set().pk)]).save()

    page = get(client, f"{list_url(SETS)}?status=saved")

    assert "Saved" in page.text
    assert page.all("progress") == []


def test_an_empty_finished_set_is_all_done(client):
    make_set([])

    (bar,) = get(client, list_url(SETS)).all("progress")

    assert (bar["max"], bar["value"]) == ("1", "1")


# The page of a set


def test_every_count_is_a_link_to_the_rows_that_it_counts(client):
    taskset = make_set(["SUCCESSFUL"] * 3 + ["FAILED"] * 2 + ["REVOKED"] + ["READY"] * 4)

    page = get(client, page_url(SETS, taskset.pk))

    for name, parameter, count in [
        ("total", "", 10),
        ("remaining", "&status=unfinished", 4),
        ("successful", "&status=successful", 3),
        ("failed", "&status=failed", 2),
        ("revoked", "&status=revoked", 1),
    ]:
        url = f"{list_url(SUBTASKS)}?taskset={taskset.pk}{parameter}"
        (link,) = page.all("a", data_tasksets_field=name, href=url)
        assert link
        assert client.get(url).context["cl"].result_count == count


def test_errors_are_shown_in_groups_with_a_button_for_each(client):
    taskset = make_set(["FAILED", "FAILED", "FAILED"])
    first, second, _ = SubtaskRecord.objects.filter(taskset=taskset).order_by("position")
    group_of(taskset, first, count=2, exception_class="KeyError", message="'colour'")
    group_of(taskset, second, fingerprint="g", message="too long")

    page = get(client, page_url(SETS, taskset.pk))

    assert "KeyError" in page.text
    assert "'colour'" in page.text
    assert "too long" in page.text
    retry = page_url(SETS, taskset.pk, "retry")
    values = [b.get("value") for b in page.all("button", formaction=retry, name="fingerprint")]
    assert values == ["f", "g"]
    assert f"{list_url(SUBTASKS)}?taskset={taskset.pk}&status=failed&error=f" in page.links()
    assert page_url(SUBTASKS, first.pk) in page.links()


def test_the_latest_failures_come_first(client):
    taskset = make_set(["FAILED"] * 12)
    rows = list(SubtaskRecord.objects.filter(taskset=taskset).order_by("position"))
    SubtaskRecord.objects.filter(pk=rows[3].pk).update(
        finished_at=timezone.now() + timedelta(seconds=5), reason="ValueError: the last one"
    )

    response = client.get(page_url(SETS, taskset.pk))

    failures = response.context["page"].failures
    assert len(failures) == 10
    assert failures[0].record.pk == rows[3].pk
    assert "ValueError: the last one" in Page(response).text
    assert "All 12" in Page(response).text


def test_callbacks_are_shown_with_their_statuses(client):
    taskset = make_set(["SUCCESSFUL"], has_callbacks=True)
    good = make_callback(taskset, Role.ON_SUCCESS, "FAILED", reason="ValueError: no")
    make_callback(taskset, Role.ON_FAILURE, "REVOKED", reason="not needed", started_at=None)

    page = get(client, page_url(SETS, taskset.pk))

    assert "On success" in page.text
    assert "ValueError: no" in page.text
    assert "not needed" in page.text
    assert page_url(SUBTASKS, good.pk) in page.links()
    # Only the one that ran and failed can be run again.
    assert {url for url in page.posts() if SUBTASKS in url} == {
        page_url(SUBTASKS, good.pk, "retry")
    }


def test_the_page_says_why_the_set_is_not_finished(client):
    now = timezone.now()
    alive = make_worker(host="alive", queues="default", heartbeat_at=now)
    late = make_worker(host="late", heartbeat_at=now - timedelta(seconds=40), queues="x")
    lost = make_worker(host="lost", lost_at=now)
    taskset = make_set([])
    TaskSetRecord.objects.filter(pk=taskset.pk).update(
        status="RUNNING", total=7, remaining=7, finished_at=None
    )
    SubtaskRecord.objects.bulk_create(
        [
            make_subtask(taskset, 0, "RUNNING", worker_id=alive.pk),
            make_subtask(taskset, 1, "RUNNING", worker_id=late.pk),
            make_subtask(taskset, 2, "RUNNING", worker_id=lost.pk),
            make_subtask(taskset, 3, "RUNNING"),
            make_subtask(taskset, 4, "SCHEDULED", retries=1, run_after=now),
            make_subtask(taskset, 5, "READY"),
            make_subtask(taskset, 6, "READY", queue_name="mail"),
        ]
    )

    text = get(client, page_url(SETS, taskset.pk)).text

    assert "running on alive:1 since" in text
    assert "that worker is late, its lease ends at" in text
    assert "held by lost:1 , which is lost; it will be given back" in text
    assert "held by a worker that is gone" in text
    assert "retry at" in text
    assert "queued in default since" in text
    assert "no live worker takes from that queue" in text


def test_what_is_next_is_shown_before_what_is_last_and_stragglers_too(client):
    ahead = make_set(["SUCCESSFUL"] * 20 + ["READY"] * 30)
    behind = make_set(["READY"] + ["SUCCESSFUL"] * 20 + ["READY"] * 2)

    shown = {
        taskset: [
            row.record.position
            for row in client.get(page_url(SETS, taskset.pk)).context["page"].waiting
        ]
        for taskset in (ahead, behind)
    }

    assert shown == {ahead: list(range(20, 30)), behind: [21, 22, 0]}


def test_a_paused_set_and_an_open_one_say_so(client):
    paused = make_set(["WAITING"], paused_at=timezone.now())
    opened = make_set(["SUCCESSFUL"], sealed_at=None, status="RUNNING", finished_at=None)

    assert "held back: the set is paused" in get(client, page_url(SETS, paused.pk)).text
    text = get(client, page_url(SETS, opened.pk)).text
    assert "The set is open" in text
    assert "All subtasks that it has so far are finished." in text


def test_the_page_shows_what_the_set_is_about(client):
    owner = get_user_model().objects.create_user("anna")
    census = Census.objects.create(path="/srv")
    origin = make_set(["SUCCESSFUL"])
    taskset = make_set(
        ["READY"],
        owner=owner,
        related_type=ContentType.objects.get_for_model(Census),
        related_id=str(census.pk),
        origin=origin,
        metadata=json.dumps({"album": 17, "when": {"$": "date", "value": "2026-11-23"}}),
    )

    page = get(client, page_url(SETS, taskset.pk))

    assert f"/admin/auth/user/{owner.pk}/change/" in page.links()
    assert f"/admin/demo/census/{census.pk}/change/" in page.links()
    assert page_url(SETS, origin.pk) in page.links()
    assert "{'album': 17, 'when': date('2026-11-23')}" in page.text
    assert page_url(SETS, taskset.pk) in get(client, page_url(SETS, origin.pk)).links()


def test_a_related_object_that_is_gone_is_said_to_be(client):
    taskset = make_set(
        ["READY"], related_type=ContentType.objects.get_for_model(Census), related_id="404"
    )

    assert "census 404 (gone)" in get(client, page_url(SETS, taskset.pk)).text


@pytest.mark.parametrize("key", ["nonsense", "11111111-1111-4111-8111-111111111111"])
@pytest.mark.parametrize("model", [SETS, SUBTASKS, WORKERS])
def test_an_unknown_key_leads_to_the_index(client, model, key):
    response = client.get(f"{list_url(model)}{key}/change/", follow=True)

    assert response.redirect_chain[-1][0] == "/admin/"
    assert "doesn’t exist" in Page(response).text


# The page of a subtask


def test_a_subtasks_page_shows_its_values_and_its_errors(client):
    worker = make_worker(host="north")
    taskset = make_set(["FAILED"], name="Resize")
    row = SubtaskRecord.objects.get(taskset=taskset)
    line = {
        "exception_class": "ValueError",
        "message": "too dark",
        "traceback": "Traceback (most recent call last): ...",
        "worker_id": str(worker.pk),
        "attempt": 3,
        "at": "2026-11-23T12:00:00+00:00",
    }
    SubtaskRecord.objects.filter(pk=row.pk).update(
        args='[1,{"$":"Decimal","value":"0.10"}]',
        kwargs='{"user":{"$":"model","class":"auth.user","value":[7,"default"]}}',
        return_value='{"$":"tuple","value":[1,2]}',
        errors=json.dumps(line) + "\n" + "not json\n",
        worker_id=worker.pk,
        claims=3,
    )

    page = get(client, page_url(SUBTASKS, row.pk))

    assert "[1, Decimal('0.10')]" in page.text
    assert "{'user': auth.user(7)}" in page.text
    assert "(1, 2)" in page.text
    assert "ValueError too dark" in page.text
    assert "Traceback (most recent call last)" in page.text
    assert "Attempt 3, at 2026-11-23 12:00:00 , by north:1" in page.text
    assert "not json" in page.text
    assert "claim 3, by north:1" in page.text
    assert page_url(SETS, taskset.pk) in page.links()
    assert page_url(WORKERS, worker.pk) in page.links()


def test_what_cannot_be_read_is_shown_as_it_is_stored(client):
    row = make_subtask(None, None, "SUCCESSFUL", args="[1,", return_value='{"$":"date"}')
    row.save()

    page = get(client, page_url(SUBTASKS, row.pk))

    assert "[1," in page.text
    assert '{"$":"date"}' in page.text


def test_redacted_names_are_not_shown(client, settings):
    settings.TASKSETS = {**settings.TASKSETS, "REDACT": ["password"]}
    row = make_subtask(None, None, "READY", kwargs='{"Password":"abc","deep":[{"password":1}]}')
    row.save()

    text = get(client, page_url(SUBTASKS, row.pk)).text

    assert "abc" not in text
    assert "{'Password': '••••••', 'deep': [{'password': '••••••'}]}" in text


def test_long_values_are_cut(client):
    row = make_subtask(None, None, "READY", args=json.dumps(["x" * 200_000]))
    row.save()

    response = client.get(page_url(SUBTASKS, row.pk))

    assert len(response.content) < 60_000
    assert "characters more" in Page(response).text


# Workers


def test_workers_are_shown_with_their_heartbeats_and_what_they_hold(client):
    now = timezone.now()
    busy = make_worker(host="busy", queues="mail,default", version="1.2")
    make_worker(host="late", heartbeat_at=now - timedelta(seconds=45))
    make_worker(host="silent", heartbeat_at=now - timedelta(seconds=90))
    make_worker(host="lost", lost_at=now)
    taskset = make_set([])
    SubtaskRecord.objects.bulk_create(
        [make_subtask(taskset, n, "RUNNING", worker_id=busy.pk) for n in range(3)]
        + [make_subtask(taskset, 3, "SUCCESSFUL", worker_id=busy.pk)]
    )

    page = get(client, list_url(WORKERS))

    states = [attributes.get("data-tasksets-state") for attributes in page.all("span")]
    assert sorted(state for state in states if state) == ["alive", "late", "lost", "lost"]
    assert "mail, default" in page.text
    held = f"{list_url(SUBTASKS)}?worker={busy.pk}"
    assert held in page.links()
    assert client.get(held).context["cl"].result_count == 3
    assert "busy:1" in get(client, page_url(WORKERS, busy.pk)).text


# All pages


@pytest.fixture
def full(client):
    """Rows of every kind, many of each."""
    worker = make_worker()
    taskset = make_set(MANY, name="Many", has_callbacks=True, owner=get_user_model().objects.get())
    rows = list(SubtaskRecord.objects.filter(taskset=taskset, status="FAILED"))
    for number, row in enumerate(rows[:12]):
        group_of(taskset, row, fingerprint=str(number))
    make_callback(taskset, Role.ON_SUCCESS, "WAITING")
    make_callback(taskset, Role.ON_FINISH, "WAITING")
    SubtaskRecord.objects.filter(pk=rows[0].pk).update(worker_id=worker.pk)
    return taskset, rows[0], worker


def urls_of(taskset, row, worker):
    return {
        "sets": list_url(SETS),
        "set": page_url(SETS, taskset.pk),
        "subtasks": list_url(SUBTASKS),
        "subtasks of a set": f"{list_url(SUBTASKS)}?taskset={taskset.pk}",
        "failed ones": f"{list_url(SUBTASKS)}?taskset={taskset.pk}&status=failed",
        "subtask": page_url(SUBTASKS, row.pk),
        "workers": list_url(WORKERS),
        "worker": page_url(WORKERS, worker.pk),
        "revoke": page_url(SETS, taskset.pk, "revoke"),
        "history": page_url(SETS, taskset.pk, "history"),
    }


BUDGETS = {
    "sets": 5, "set": 13, "subtasks": 4, "subtasks of a set": 5, "failed ones": 5, "subtask": 4,
    "workers": 4, "worker": 3, "revoke": 4, "history": 6,
}  # fmt: skip


def test_no_page_takes_more_queries_for_more_rows(client, full):
    few = {name: queries_of(client, url) for name, url in urls_of(*full).items()}
    for number in range(30):
        make_worker(pid=number + 2)
        make_set(MANY[::5], name=str(number), owner=get_user_model().objects.get())
    taskset = full[0]
    SubtaskRecord.objects.bulk_create(
        [make_subtask(taskset, len(MANY) + n, "READY") for n in range(60)]
    )
    taskset.subtasks.filter(status="SUCCESSFUL").update(status="FAILED")
    TaskSetRecord.objects.filter(pk=taskset.pk).update(
        total=200, failed=100, successful=0, remaining=100
    )

    many = {name: queries_of(client, url) for name, url in urls_of(*full).items()}

    assert many == few
    assert {name: count for name, count in many.items() if count > BUDGETS[name]} == {}


def test_no_page_needs_what_a_strict_content_policy_forbids(client, full):
    for name, url in urls_of(*full).items():
        page = get(client, url)
        assert [e for e in page.elements if "style" in e[1]] == [], name
        assert [e for e in page.elements if e[0] == "style"] == [], name
        assert [e for e in page.elements if any(a.startswith("on") for a in e[1])] == [], name
        inline = [e for e in page.elements if e[0] == "script" and "src" not in e[1]]
        # Django's own, which is data and no code.
        assert [e for e in inline if e[1].get("type") != "application/json"] == [], name


def test_whatever_the_data_says_it_is_shown_as_text(client):
    user = get_user_model().objects.create_user(username=f"a{ATTACK}"[:100])
    taskset = make_set(
        ["FAILED", "RUNNING"],
        name=ATTACK,
        owner=user,
        metadata=json.dumps({"x": ATTACK}),
        revoke_reason=ATTACK,
        related_type=ContentType.objects.get_for_model(Census),
        related_id=ATTACK,
    )
    row = SubtaskRecord.objects.get(taskset=taskset, status="FAILED")
    line = dict.fromkeys(
        ("exception_class", "message", "traceback", "worker_id", "attempt", "at"), ATTACK
    )
    SubtaskRecord.objects.filter(taskset=taskset).update(
        task_name=ATTACK,
        reason=ATTACK,
        queue_name=ATTACK,
        args=json.dumps([ATTACK]),
        kwargs=json.dumps({ATTACK: ATTACK}),
        options=json.dumps({ATTACK: 1}),
        links=json.dumps({"link": [ATTACK]}),
        return_value=json.dumps({"$": ATTACK, "class": ATTACK, "value": ATTACK}),
        errors=json.dumps(line) + "\n",
        error_fingerprint="f",
    )
    group_of(taskset, row, exception_class=ATTACK, message=ATTACK, fingerprint='"><b>')
    callback = make_callback(taskset, Role.ON_FINISH, "FAILED", reason=ATTACK)
    SubtaskRecord.objects.filter(pk=callback.pk).update(task_name=ATTACK)
    worker = make_worker(host=ATTACK, queues=ATTACK, version=ATTACK)

    urls = urls_of(taskset, row, worker)
    urls["delete"] = page_url(SETS, taskset.pk, "delete")
    urls["revoke subtask"] = page_url(SUBTASKS, row.pk, "revoke")
    for name, url in urls.items():
        response = client.get(url)
        page = Page(response)
        assert response.status_code == 200, name
        assert [e for e in page.elements if e[0] in ("img", "b") and "onerror" in e[1]] == [], name
        assert "<img src=x" not in response.content.decode(), name
        assert "&amp;lt;" not in response.content.decode(), name


def test_numbers_in_attributes_are_for_machines_in_every_language(client, settings):
    settings.LANGUAGE_CODE = "de"
    settings.USE_THOUSAND_SEPARATOR = True
    taskset = make_set(["READY"])
    TaskSetRecord.objects.filter(pk=taskset.pk).update(
        total=1_234_567, remaining=1_000_000, successful=234_567
    )
    headers = {"accept-language": "de"}

    for url in (list_url(SETS), page_url(SETS, taskset.pk)):
        page = Page(client.get(url, headers=headers))
        (bar,) = page.all("progress")
        assert (bar["max"], bar["value"]) == ("1234567", "234567")
        assert "234.567" in page.text
        assert "1.234.567" in page.text
