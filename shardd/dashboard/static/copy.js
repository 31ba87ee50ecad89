// Buttons with `data-copies="ID"` copy the text of that element. They are hidden in the page: without this script, they could do nothing.
"use strict";

async function copied(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    // Not over plain HTTP from another host: select it, and let the browser copy what is selected.
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

document.addEventListener("htmx:load", () => {
  document.querySelectorAll("[data-copies]").forEach((button) => (button.hidden = false));
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) {
    return;
  }
  const done = await copied(document.getElementById(button.dataset.copies));
  const said = document.getElementById("copied");
  said.textContent = done ? button.dataset.done : "The browser does not let this page copy: it is selected now.";
});
