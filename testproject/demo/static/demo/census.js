// The bar: asks how far the census is until it has ended, then loads the page with the report.
"use strict";

const box = document.querySelector("[data-progress]");
const part = (name) => box.querySelector(`[data-${name}]`);
const bar = box.querySelector("progress");
const title = document.title;

function show(now) {
  bar.max = now.total;
  bar.value = now.finished;
  part("percent").textContent = now.percent;
  part("finished").textContent = now.finished.toLocaleString("en");
  part("rate").textContent = now.rate ? `${now.rate.toLocaleString("en")} a second` : "";
  part("eta").textContent = now.eta ? `about ${now.eta} s left` : "";
  // What a screen reader announces: set only when it changes.
  const stage = now.finished < now.total ? "Surveying the files" : "Adding it all up";
  if (part("stage").textContent !== stage) part("stage").textContent = stage;
  document.title = `${now.percent} % · ${title}`;
}

async function poll() {
  let pause = 300;
  try {
    const response = await fetch(box.dataset.progress);
    if (!response.ok) throw new Error(response.statusText);
    const now = await response.json();
    show(now);
    if (now.status !== "COUNTING") return location.reload();
  } catch {
    part("stage").textContent = "The site does not answer; trying again";
    pause = 2000;
  }
  setTimeout(poll, document.hidden ? 5000 : pause);
}

poll();
