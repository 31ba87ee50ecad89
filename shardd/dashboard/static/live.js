// The stream of a page. htmx's extension sees one that never ends; behind it, the connection is closed while nobody sees the page,
// opened again when somebody does, and again and again after it broke off, which the page then says in words.
"use strict";

const HIDDEN_FOR = 5000; // milliseconds: somebody who looks into another tab for a moment connects only once
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 30000;

function sayOfConnection(words) {
  const line = document.getElementById("connection");
  if (line.textContent !== words) {
    line.textContent = words;
  }
}

class Stream extends EventTarget {
  constructor(url) {
    super();
    this.url = url;
    this.readyState = EventSource.CONNECTING;
    this.names = new Set(["notice", "over"]);
    this.wait = FIRST_WAIT;
    this.noticed = "";
    this.source = null;
    this.gaveWay = false; // other pages took the place of this one
    this.visibility = () => this.lookAround();
    this.back = () => this.gaveWay && this.lookAround();
    document.addEventListener("visibilitychange", this.visibility);
    window.addEventListener("focus", this.back);
    document.addEventListener("pointerdown", this.back);
    // The extension adds its listeners first.
    queueMicrotask(() => this.lookAround());
  }

  addEventListener(name, listener, options) {
    super.addEventListener(name, listener, options);
    if (!this.names.has(name)) {
      this.names.add(name);
      if (this.source) {
        this.forward(this.source, name);
      }
    }
  }

  lookAround() {
    clearTimeout(this.timer);
    if (this.readyState === EventSource.CLOSED) {
      return;
    }
    if (document.hidden) {
      this.timer = setTimeout(() => this.disconnect(), this.source ? HIDDEN_FOR : 0);
    } else if (!this.source) {
      this.connect();
    }
  }

  connect() {
    const source = new EventSource(this.url);
    this.source = source;
    this.gaveWay = false;
    this.names.forEach((name) => this.forward(source, name));
    source.onopen = () => {
      this.readyState = EventSource.OPEN;
      this.wait = FIRST_WAIT;
      sayOfConnection(this.noticed);
    };
    source.onerror = () => {
      if (source === this.source) {
        this.lost();
      }
    };
  }

  forward(source, name) {
    source.addEventListener(name, (event) => {
      if (name === "notice") {
        this.noticed = event.data;
        sayOfConnection(event.data);
      } else if (name === "over") {
        this.disconnect();
        this.gaveWay = true;
        sayOfConnection(event.data);
      }
      this.dispatchEvent(new MessageEvent(name, { data: event.data }));
    });
  }

  // Why is not known to an EventSource, so ask once more.
  async lost() {
    this.disconnect();
    this.noticed = "";
    const line = document.getElementById("connection");
    let status = 0;
    try {
      status = (await fetch(this.url, { method: "HEAD" })).status;
    } catch {
      // No answer: shardd, or the way to it, is away.
    }
    if (this.readyState === EventSource.CLOSED) {
      return;
    }
    if (status === 401) {
      this.close();
      sayOfConnection(line.dataset.signedOut);
      return;
    }
    if (status !== 200) {
      sayOfConnection(line.dataset.lost);
    }
    this.timer = setTimeout(() => this.lookAround(), this.wait * (0.5 + Math.random() / 2));
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
  }

  disconnect() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  close() {
    this.disconnect();
    this.readyState = EventSource.CLOSED;
    document.removeEventListener("visibilitychange", this.visibility);
    window.removeEventListener("focus", this.back);
    document.removeEventListener("pointerdown", this.back);
  }
}

htmx.createEventSource = (url) => new Stream(url);

// A list to which new rows are added at the top stays as long as its page wants it.
document.addEventListener("htmx:sseMessage", (event) => {
  const list = event.target.closest?.("[data-most]");
  if (list) {
    list.querySelector(".none")?.remove();
    while (list.rows.length > Number(list.dataset.most)) {
      list.lastElementChild.remove();
    }
  }
});
