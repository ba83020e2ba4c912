// What every page does: menu, toasts, look, fresh times, and the one socket.
import { connect } from "./live.js";

document.documentElement.classList.add("scripted");

const menu = document.querySelector(".menu");
menu?.addEventListener("click", () => {
  const open = document.querySelector("#nav").classList.toggle("open");
  menu.setAttribute("aria-expanded", String(open));
});

// Looks change at once; the form still tells the server, which renders the next page with it.
for (const button of document.querySelectorAll(".themes button")) {
  button.addEventListener("click", async (event) => {
    event.preventDefault();
    document.documentElement.dataset.theme = button.value;
    for (const other of document.querySelectorAll(".themes button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    const body = new URLSearchParams(new FormData(button.form));
    body.set("theme", button.value);
    await fetch(button.form.action, { method: "POST", body, redirect: "manual" });
  });
}

// A small menu closes when one goes elsewhere.
function closeMenus(except) {
  for (const open of document.querySelectorAll("details[name][open]")) open.open = open.contains(except);
}
document.addEventListener("click", ({ target }) => closeMenus(target));
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") closeMenus(null);
});

const AGAIN_MS = 3000;
const sent = new WeakSet();

// What htmx posts it asks about itself. A form whose button is pressed twice is sent once.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method") !== "post") return;
  const words = form.getAttribute("data-confirm");
  if (sent.has(form) || (words && !confirm(words))) return event.preventDefault();
  sent.add(form);
  setTimeout(() => sent.delete(form), AGAIN_MS);
});

const toasts = document.querySelector("#toasts");
const SHOWN_MS = 6000;
const SHOWN_AT_ONCE = 3;

function fade(node) {
  setTimeout(() => node.remove(), SHOWN_MS);
  node.addEventListener("click", () => node.remove());
  // Many at once would hide what they are about: the newest stay.
  [...toasts.querySelectorAll(".toast")].slice(0, -SHOWN_AT_ONCE).forEach((old) => old.remove());
}

function toast(text, kind = "done") {
  const node = document.createElement("p");
  node.className = kind === "error" ? "toast error" : "toast";
  const words = document.createElement("span");
  words.textContent = text;
  node.append(words);
  toasts.append(node);
  fade(node);
}

toasts.querySelectorAll(".toast").forEach(fade);
new MutationObserver((changes) => {
  for (const change of changes) change.addedNodes.forEach((node) => node.id === "toasts" && take(node));
}).observe(toasts, { childList: true });

// htmx appends the answer's whole toast box; its toasts are ours then.
function take(box) {
  for (const node of box.querySelectorAll(".toast")) {
    toasts.append(node);
    fade(node);
  }
  box.remove();
}

document.addEventListener("toast", (event) => toast(event.detail.text, event.detail.kind));
document.addEventListener("live:notification", ({ detail }) => {
  if (!detail.read_at) toast(detail.title);
});
const AWAY = "The server does not answer.";
document.addEventListener("htmx:sendError", () => toast(AWAY, "error"));
// Our own answers bring their words along; those of a proxy before us do not.
document.addEventListener("htmx:responseError", ({ detail: { xhr } }) => {
  if (xhr.getResponseHeader("HX-Trigger") || xhr.getResponseHeader("HX-Redirect")) return;
  toast(xhr.status < 500 ? "The server did not take that." : AWAY, "error");
});

const STEPS = [[31536000, "year"], [2592000, "month"], [86400, "day"], [3600, "h"], [60, "min"]];

// The same words as genonaut/api/web/words.py.
function relative(then) {
  const seconds = (then - Date.now()) / 1000;
  const away = Math.abs(seconds);
  if (away < 45) return seconds <= 0 ? "just now" : "in a moment";
  const [size, unit] = STEPS.find(([length]) => away >= length) ?? STEPS.at(-1);
  const count = Math.max(1, Math.round(away / size));
  const plural = count > 1 && unit.length > 3 || count > 1 && unit === "day" ? "s" : "";
  return seconds < 0 ? `${count} ${unit}${plural} ago` : `in ${count} ${unit}${plural}`;
}

setInterval(() => {
  for (const node of document.querySelectorAll("time[datetime]:not([data-exact])")) {
    node.textContent = relative(Date.parse(node.dateTime));
  }
}, 20000);

connect(document.body.dataset.live);
