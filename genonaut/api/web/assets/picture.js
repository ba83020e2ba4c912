// Copy the prompt, go to the neighbours with the arrow keys, and note what was looked at.
// It imports nothing of app.js: that has a version in its address here, and without one would run
// a second time.

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    document.dispatchEvent(new CustomEvent("toast", { detail: { text: "Copied.", kind: "done" } }));
  });
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (rel) document.querySelector(`a[rel="${rel}"]`)?.click();
});

// A view is a page that was before one's eyes for a moment: not one fetched ahead, nor a tab that
// was opened behind. One's own pictures have no such form.
const NOTED_AFTER_MS = 1000;
const form = document.querySelector("#noted");

function note(kind) {
  const body = new URLSearchParams(new FormData(form));
  body.set("kind", kind);
  fetch(form.action, { method: "POST", body, keepalive: true }).catch(() => {});
}

if (form) {
  let timer = 0;
  let viewed = false;
  const watch = () => {
    clearTimeout(timer);
    if (viewed || document.prerendering || document.visibilityState !== "visible") return;
    timer = setTimeout(() => {
      viewed = true;
      note("view");
    }, NOTED_AFTER_MS);
  };
  document.addEventListener("visibilitychange", watch);
  document.addEventListener("prerenderingchange", watch);
  watch();
  for (const link of document.querySelectorAll("a[download]")) {
    link.addEventListener("click", () => note("download"));
  }
}
