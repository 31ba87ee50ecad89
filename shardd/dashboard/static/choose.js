// A form with `data-choose="job"`: some of its rows are chosen, or all of them, and the buttons act on those.
"use strict";

const ROWS = 'tbody input[type="checkbox"]';

function wordsOf(form) {
  const number = form.querySelectorAll(`${ROWS}:checked`).length;
  return `${number || "none"} ${number === 1 ? form.dataset.choose : `${form.dataset.choose}s`}`;
}

function count(form) {
  const rows = [...form.querySelectorAll(ROWS)];
  const number = rows.filter((row) => row.checked).length;
  const all = form.querySelector("[data-choose-all]");
  if (!all) {
    return;
  }
  all.checked = number > 0 && number === rows.length;
  all.indeterminate = number > 0 && number < rows.length;
  form.querySelector("[data-chosen]").textContent = number ? `${number} chosen` : "none chosen";
  for (const button of form.querySelectorAll("button[hx-post]")) {
    button.disabled = number === 0;
  }
}

document.addEventListener("change", (event) => {
  const form = event.target.closest("[data-choose]");
  if (!form) {
    return;
  }
  if (event.target.matches("[data-choose-all]")) {
    form.querySelectorAll(ROWS).forEach((row) => (row.checked = event.target.checked));
  }
  count(form);
});

// Also when the browser has kept what was chosen, or an act has brought new rows.
document.addEventListener("htmx:load", () => document.querySelectorAll("[data-choose]").forEach(count));
window.addEventListener("pageshow", () => document.querySelectorAll("[data-choose]").forEach(count));

// The question says how many; this comes before the dialog, which shows it.
document.addEventListener(
  "htmx:confirm",
  (event) => {
    const form = event.detail.elt.closest("[data-choose]");
    if (form && event.detail.question) {
      event.detail.question = event.detail.question.replace("{chosen}", wordsOf(form));
    }
  },
  { capture: true },
);
