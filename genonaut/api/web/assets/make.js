// Sizes, seeds, and the pictures of jobs at work.
const form = () => document.querySelector("#make-form");
const field = (name) => form()?.elements[name];

document.addEventListener("click", ({ target }) => {
  const button = target.closest?.("[data-dice], [data-lock]");
  if (!button) return;
  if ("dice" in button.dataset) {
    const [high, low] = crypto.getRandomValues(new Uint32Array(2));
    field("seed").value = (high % 2 ** 21) * 2 ** 32 + low;
  } else {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  }
});

document.addEventListener("input", ({ target }) => {
  if (!target.form || target.form !== form()) return;
  if (target.name === "size" && target.dataset.width) {
    field("width").value = target.dataset.width;
    field("height").value = target.dataset.height;
  }
  if (target.name === "size" && target.value === "own") field("width").closest("details").open = true;
  if (target.name === "width" || target.name === "height") field("size").value = "own";
});

// A refused form comes back with what is wrong; other errors are told by a toast.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (detail.xhr.getResponseHeader("HX-Retarget") !== "#make-form") return;
  detail.shouldSwap = true;
  detail.isError = false;
});

document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (detail.elt !== form()) return;
  if (detail.xhr.status === 200) {
    for (const node of form().querySelectorAll(".field-error, .error")) node.remove();
    for (const node of form().querySelectorAll("[aria-invalid]")) node.removeAttribute("aria-invalid");
    const kept = form().querySelector("[data-lock]").getAttribute("aria-pressed") === "true";
    if (!kept) field("seed").value = "";
  }
});

document.addEventListener("htmx:afterSettle", ({ target }) => {
  // A card that was rendered anew shows its last frame until the next.
  for (const image of document.querySelectorAll("[data-preview]")) {
    if (!shown.has(image.dataset.preview)) continue;
    image.src = shown.get(image.dataset.preview);
    image.hidden = false;
  }
  // Of the form alone: a card that is renewed must not take the focus from where one types.
  if (target === form()) target.querySelector("[aria-invalid]")?.focus();
});

// A frame is the job's id in eight bytes, then a JPEG. Frames that are replaced are let go.
const shown = new Map();

document.addEventListener("live:frame", ({ detail }) => {
  const id = String(new DataView(detail).getBigUint64(0));
  const image = document.querySelector(`[data-preview="${id}"]`);
  if (!image) return;
  const url = URL.createObjectURL(new Blob([detail.slice(8)], { type: "image/jpeg" }));
  if (shown.has(id)) URL.revokeObjectURL(shown.get(id));
  shown.set(id, url);
  image.src = url;
  image.hidden = false;
});

document.addEventListener("live:job", ({ detail }) => {
  const id = String(detail.id);
  if (!["completed", "failed", "cancelled"].includes(detail.status) || !shown.has(id)) return;
  URL.revokeObjectURL(shown.get(id));
  shown.delete(id);
});
