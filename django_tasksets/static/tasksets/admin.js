/* Keeps bars, counts and statuses up to date. The page works without it: it only saves reloads.
   Everything it writes is text, everything it says comes from the server, in the user's language.

   [data-tasksets-url]      where to ask
   [data-tasksets-set=id]   texts of one set are in here; with [data-tasksets-live] more will come
   [data-tasksets-field]    a text, by its name; progress and [data-tasksets-state] speak for themselves
   [data-tasksets-can]      a button that is shown while the set is such that it would do something
*/
"use strict";

const FIRST = 1000; // milliseconds until the first question
const PATIENCE = 60000; // the longest pause after errors
const JITTER = 0.2; // so that many pages do not ask at the same moment

class Watcher {
  constructor(url, ids, callbacks) {
    const address = new URL(url, document.baseURI);
    for (const id of ids) address.searchParams.append("id", id);
    if (callbacks) address.searchParams.append("callbacks", "1");
    this.address = address;
    this.pause = FIRST;
    this.errors = 0;
    document.addEventListener("visibilitychange", () => this.schedule());
    this.schedule();
  }

  schedule() {
    clearTimeout(this.timer);
    // A page that nobody sees asks nothing; it asks at once when it is seen again.
    if (this.pause === null || document.hidden) return;
    const pause = this.pause * (1 - JITTER + 2 * JITTER * Math.random());
    this.timer = setTimeout(() => this.ask(), pause);
  }

  async ask() {
    try {
      const response = await fetch(this.address, {
        headers: { Accept: "application/json" },
        credentials: "same-origin",
        redirect: "error",
      });
      if (response.status >= 400 && response.status < 500) return this.stop();
      if (!response.ok) throw new Error(response.status);
      this.show(await response.json());
      this.errors = 0;
    } catch {
      this.errors += 1;
      this.pause = Math.min(PATIENCE, FIRST * 2 ** this.errors);
    }
    this.schedule();
  }

  /* Signed out, or not allowed any more: say so, and leave it. */
  stop() {
    this.pause = null;
    for (const note of document.querySelectorAll("[data-tasksets-lost]")) note.hidden = false;
  }

  show(answer) {
    for (const [id, set] of Object.entries(answer.sets)) showSet(id, set);
    for (const [id, status] of Object.entries(answer.subtasks)) {
      for (const place of document.querySelectorAll(`[data-tasksets-subtask="${id}"]`)) {
        showStatus(place.querySelector(".tasksets-status"), status);
      }
    }
    for (const note of document.querySelectorAll("[data-tasksets-deserted]")) {
      note.hidden = !answer.deserted;
    }
    this.pause = answer.poll;
  }
}

function showSet(id, set) {
  for (const place of document.querySelectorAll(`[data-tasksets-set="${id}"]`)) {
    const before = standing(place);
    for (const field of place.querySelectorAll("[data-tasksets-field]")) {
      setText(field, set.fields[field.dataset.tasksetsField]);
    }
    for (const bar of place.querySelectorAll("progress")) {
      bar.max = set.max;
      bar.value = set.value;
      bar.textContent = set.fields.percent;
      bar.dataset.tasksetsState = set.status.key;
    }
    showStatus(place.querySelector(".tasksets-status"), set.status);
    place.toggleAttribute("data-tasksets-live", set.live);
    if (place.querySelector("[data-tasksets-announce]")) announce(place, set, before);
  }
  for (const button of document.querySelectorAll("[data-tasksets-can]")) {
    button.hidden = !set.can[button.dataset.tasksetsCan];
  }
}

/* What a place shows at the moment, of what is announced when it changes. */
function standing(place) {
  const bar = place.querySelector("progress");
  return {
    status: place.querySelector(".tasksets-status")?.dataset.tasksetsState,
    failed: place.querySelector("[data-tasksets-field=failed]")?.textContent,
    remaining: place.querySelector("[data-tasksets-field=remaining]")?.textContent,
    quarter: bar && Math.floor((bar.value * 4) / bar.max),
  };
}

/* What a link is about is its inner text. */
function setText(element, text) {
  const inner = element.querySelector("a") || element;
  if (text !== undefined && inner.textContent !== text) inner.textContent = text;
}

function showStatus(element, status) {
  if (!element || element.dataset.tasksetsState === status.key) return;
  element.dataset.tasksetsState = status.key;
  element.querySelector(".tasksets-icon").textContent = status.icon;
  element.querySelector(".tasksets-word").textContent = status.label;
}

/* Screen readers are told at every quarter and at every change of status, not at every count; and
   that the tables below have grown old is told once something has failed or the status changed, or
   once anything has ended, if what is waited for is among them. */
function announce(place, set, before) {
  const now = standing(place);
  if (before.status !== now.status || before.quarter !== now.quarter) {
    const text = `${set.status.label}: ${set.fields.summary}`;
    setText(place.querySelector("[data-tasksets-announce]"), text);
  }
  const note = document.querySelector("[data-tasksets-stale]");
  const waits = document.getElementById("tasksets-waiting") !== null;
  const differs = (name) => before[name] !== now[name];
  if (note && (differs("status") || differs("failed") || (waits && differs("remaining")))) {
    note.hidden = false;
  }
}

const source = document.querySelector("[data-tasksets-url]");
const live = [...document.querySelectorAll("[data-tasksets-live]")];
if (source && live.length) {
  const ids = new Set(live.map((place) => place.dataset.tasksetsSet));
  new Watcher(
    source.dataset.tasksetsUrl,
    ids,
    live.some((place) => "tasksetsCallbacks" in place.dataset),
  );
}
