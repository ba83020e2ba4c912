// One socket per tab. What it says is shown where the page marks it:
//
//   data-row="job:12" data-version="3" data-status="running" data-src="/jobs/12/card"
//       shows a row. A newer version with the same status fills the elements inside that have
//       data-bind="progress.percent"; another status has the server render the element anew.
//   data-list="job" id="jobs" data-src="/"
//       holds rows of a kind. One that it does not show has the whole list rendered anew, once for
//       each status: it may belong to another page of the list.
//   data-unread     shows the number of unread notifications.
//
// Pages hear the same as events on the document: live:snapshot, live:job, live:run,
// live:notification, live:unread and live:frame.

const FIRST_MS = 500;
const LONGEST_MS = 20000;
const GENTLE_MS = 400;

let wait = FIRST_MS;
let again = 0;

export function connect(path) {
  if (!path) return;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}${path}`);
  const lost = () => socket.close();
  const found = () => {
    clearTimeout(again);
    wait = FIRST_MS;
    if (socket.readyState === WebSocket.CLOSED) connect(path);
  };
  socket.binaryType = "arraybuffer";
  // A network that goes is noticed at once, not when the socket's last packet has timed out.
  window.addEventListener("offline", lost);
  socket.addEventListener("message", ({ data }) => {
    if (typeof data !== "string") return tell("frame", data);
    const message = JSON.parse(data);
    if (message.type === "snapshot") {
      wait = FIRST_MS;
      show("on", "Live");
      snapshot(message.data);
    } else {
      receive(message);
    }
  });
  socket.addEventListener("close", ({ code }) => {
    window.removeEventListener("offline", lost);
    if (code === 4401) return show("off", "Logged out");
    if (code === 4403 || code === 4404) return show("off", "Not live");
    show("wait", "Reconnecting");
    window.addEventListener("online", found, { once: true });
    if (!navigator.onLine) return;
    again = setTimeout(() => {
      window.removeEventListener("online", found);
      connect(path);
    }, wait * (0.5 + Math.random()));
    wait = Math.min(wait * 2, LONGEST_MS);
  });
}

function show(state, word) {
  const mark = document.querySelector(".live");
  if (!mark) return;
  mark.dataset.state = state;
  mark.querySelector("[data-live-word]").textContent = word;
}

function tell(kind, detail) {
  document.dispatchEvent(new CustomEvent(`live:${kind}`, { detail }));
}

// The status of each row not shown for which the lists were rendered anew.
const elsewhere = new Map();

function snapshot(data) {
  const known = new Map();
  elsewhere.clear();
  for (const [kind, rows] of [["job", data.jobs], ["run", data.runs]]) {
    for (const row of rows ?? []) known.set(`${kind}:${row.id}`, row);
    if (!rows) continue;
    // What the page shows as unfinished and is not among these has ended meanwhile.
    for (const node of document.querySelectorAll(`[data-row^="${kind}:"]`)) {
      const over = ["completed", "failed", "cancelled", "skipped"].includes(node.dataset.status);
      if (!over && !known.has(node.dataset.row)) renew(node);
    }
    for (const row of rows) place(kind, row);
  }
  if (typeof data.unread === "number") unread(data.unread);
  tell("snapshot", data);
}

function receive({ type, id, data }) {
  if (type === "unread") unread(data.unread);
  if (type === "notification") count();
  if (type === "job" || type === "run") place(type, data);
  tell(type, data ?? { id });
}

// The newest that was heard of each row, for what is put into the page later and is older.
const heard = new Map();
const HEARD_MAX = 500;

function place(kind, row) {
  const key = `${kind}:${row.id}`;
  heard.delete(key);
  heard.set(key, row);
  if (heard.size > HEARD_MAX) heard.delete(heard.keys().next().value);
  const nodes = document.querySelectorAll(`[data-row="${key}"]`);
  if (!nodes.length) {
    if (elsewhere.get(key) === row.status) return;
    elsewhere.set(key, row.status);
    for (const list of document.querySelectorAll(`[data-list="${kind}"]`)) renew(list);
    return;
  }
  nodes.forEach((node) => refresh(node, row));
}

function refresh(node, row) {
  if (Number(node.dataset.version ?? 0) >= row.version) return;
  if (node.dataset.status === row.status && !row.cancel_requested) {
    node.dataset.version = row.version;
    fill(node, row);
  } else {
    renew(node);
  }
}

// An answer to an act may have been read before what was heard while it came.
document.addEventListener("htmx:afterSettle", ({ target }) => {
  for (const node of [target, ...target.querySelectorAll("[data-row]")]) {
    const row = heard.get(node.dataset.row);
    if (row) refresh(node, row);
  }
});

function fill(node, row) {
  for (const part of node.querySelectorAll("[data-bind]")) {
    if (part.closest("[data-row]") !== node) continue; // it shows another row, within this one
    const value = part.dataset.bind.split(".").reduce((found, name) => found?.[name], row);
    if (value === undefined || value === null) continue;
    if (part instanceof HTMLProgressElement) part.value = Number(value);
    else part.textContent = String(value).replaceAll("_", " ");
  }
}

function unread(count) {
  for (const node of document.querySelectorAll("[data-unread]")) {
    node.textContent = count > 999 ? "999+" : count;
    node.hidden = !count;
  }
  tell("unread", count);
}

let counting = 0;

// A notification does not say how many there are now.
function count() {
  clearTimeout(counting);
  counting = setTimeout(async () => {
    const answer = await fetch("/api/v1/notifications/unread-count");
    if (answer.ok) unread((await answer.json()).count);
  }, 200);
}

const waiting = new Map();
const rendering = new Set();

// What is being rendered anew, or is within that: the answer may be older than what was heard since.
function isRendering(node) {
  return [...rendering].some((id) => document.getElementById(id)?.contains(node));
}

// The answer to an act is under way to an element within, and would find it gone.
function isActing(node) {
  return node.querySelector(".htmx-request") !== null;
}

function later(node) {
  node.dataset.renewed = performance.now();
  renew(node);
}

document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { target, requestConfig } = detail;
  if (!target.dataset.src || requestConfig.verb !== "get" || !isActing(target)) return;
  detail.shouldSwap = false;
  later(target);
});

// Have the server render an element anew: at once, then at most once in a while. It is the source of
// its own request: htmx makes one at a time for each source, and drops what waits behind it.
function renew(node) {
  const outer = node.parentElement?.closest("[data-src]");
  // Many rows of one page are rendered anew together.
  if (outer?.id && outer.dataset.src === node.dataset.src) return renew(outer);
  const id = node.id;
  if (!id || !node.dataset.src || waiting.has(id)) return;
  const after = performance.now() - Number(node.dataset.renewed ?? -GENTLE_MS) >= GENTLE_MS ? 0 : GENTLE_MS;
  waiting.set(id, setTimeout(async () => {
    waiting.delete(id);
    const old = document.getElementById(id);
    if (!old) return;
    if (isActing(old) || isRendering(old)) return later(old);
    rendering.add(id);
    try {
      await window.htmx.ajax("GET", old.dataset.src, {
        source: old, target: old, select: `#${CSS.escape(id)}`, swap: "outerHTML",
      });
    } catch {
      return; // htmx:sendError has told; who connects again hears of everything
    } finally {
      rendering.delete(id);
    }
    const made = document.getElementById(id);
    if (made) made.dataset.renewed = performance.now();
  }, after));
}
