// What htmx does not do by itself: ask before an act that cannot be undone, and say that there is no answer yet, or was none.
"use strict";

function say(words) {
  document.getElementById("done").replaceChildren();
  document.getElementById("failed").replaceChildren();
  if (!words) {
    return;
  }
  const paragraph = document.createElement("p");
  paragraph.textContent = words;
  document.getElementById("failed").append(paragraph);
}

// hx-confirm: the dialog's button has the words of the one that was pressed.
document.addEventListener("htmx:confirm", (event) => {
  const { question, elt, triggeringEvent, issueRequest } = event.detail;
  if (!question) {
    return;
  }
  event.preventDefault();
  const sure = document.getElementById("sure");
  document.getElementById("question").textContent = question;
  document.getElementById("yes").textContent = (triggeringEvent?.submitter ?? elt).textContent.trim();
  sure.returnValue = "";
  sure.addEventListener("close", () => sure.returnValue === "yes" && issueRequest(true), { once: true });
  sure.showModal();
});

// The content anew, after an act: the whole page, of which htmx takes the content, and not the part that a page answers htmx with.
document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt.id === "anew") {
    delete event.detail.headers["HX-Request"];
  }
});

// What was pressed, until its answer is here.
const WAITS = "Waiting for the answer…";
let waiting = 0;
document.addEventListener("htmx:beforeSend", (event) => {
  if (event.detail.requestConfig.verb === "get") {
    return;
  }
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    say("");
    document.getElementById("done").textContent = WAITS;
  }, 400);
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.requestConfig?.verb === "get") {
    return;
  }
  clearTimeout(waiting);
  const done = document.getElementById("done");
  if (done.textContent === WAITS) {
    done.replaceChildren();
  }
});

document.addEventListener("htmx:sendError", () => say("The dashboard does not answer. Nothing may have been done; look before you try again."));
document.addEventListener("htmx:timeout", () => say("The dashboard did not answer in time. It may have been done; look before you try again."));
