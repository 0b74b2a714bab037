// The form of the post: its text, its photograph (chosen, dropped or pasted), texts that come with it, examples.

import { byId, el } from "./dom.js";
import { examples, picture } from "./service.js";

const LIMIT = 20 * 2 ** 20 - 4096;
let photograph = null;
let shown = null;

export function setPhotograph(file) {
  if (shown) URL.revokeObjectURL(shown);
  photograph = file;
  shown = file ? URL.createObjectURL(file) : null;
  const preview = byId("preview");
  preview.hidden = !file;
  if (shown) preview.src = shown;
  else preview.removeAttribute("src");
  preview.alt = file ? "The chosen photograph" : "";
  byId("drop").classList.toggle("full", Boolean(file));
  byId("photo").hidden = !file;
  byId("photo-name").textContent = file?.name ?? "";
  if (!file) byId("image").value = "";
}

export const photographAddress = () => shown;

function attached() {
  const fields = [...byId("attached").querySelectorAll("textarea")];
  return Object.fromEntries(fields.filter((f) => f.value.trim()).map((f) => [f.name, f.value]));
}

// What is asked now; a string where it cannot be asked.
export function currentPost() {
  const text = byId("text").value;
  if (!text.trim()) return "Write or paste a text first: a photograph alone has no entities.";
  if (photograph && photograph.size > LIMIT) return "The photograph is larger than the 20 MiB that the service takes. Choose a smaller one.";
  return { text, image: photograph, attached: attached() };
}

// A field for each text that experts of the model read with a post.
export function showAttachable(names) {
  const fields = names.map((name) =>
    el("div", { class: "field" }, el("label", { for: `attached-${name}` }, `${name[0].toUpperCase()}${name.slice(1)} `, el("span", { class: "optional" }, "optional")),
      el("textarea", { id: `attached-${name}`, name, rows: 2, dir: "auto", maxlength: 200000, "aria-describedby": "attached-hint" })),
  );
  byId("attached-fields").replaceChildren(...fields);
  byId("attached").hidden = !names.length;
}

// Texts of another post would be read as this one's.
function clearAttached() {
  for (const field of byId("attached").querySelectorAll("textarea")) field.value = "";
}

function taken(files) {
  const file = [...files].find((one) => one.type.startsWith("image/"));
  if (file) setPhotograph(file);
  return Boolean(file);
}

export function preparePost() {
  const drop = byId("drop");
  byId("image").addEventListener("change", (event) => {
    if (event.target.files.length) setPhotograph(event.target.files[0]);
  });
  byId("no-image").addEventListener("click", () => {
    setPhotograph(null);
    byId("image").focus();
  });
  for (const kind of ["dragenter", "dragover"])
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!taken(event.dataTransfer.files)) byId("error").textContent = "What was dropped is not a picture file.";
  });
  byId("text").addEventListener("paste", (event) => {
    if (taken(event.clipboardData.files)) event.preventDefault();
  });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
  });
}

async function choose(example, ask) {
  byId("error").textContent = "";
  try {
    const file = example.picture ? await picture(example.picture, example.picture.split("/").at(-1)) : null;
    setPhotograph(file);
    byId("text").value = example.text;
    clearAttached();
    await ask();
  } catch (problem) {
    byId("error").textContent = problem.message;
  }
}

export async function showExamples(ask) {
  const items = (await examples()).map((example) =>
    el("li", {}, el("button", { type: "button", class: "example", "data-id": example.id, click: () => choose(example, ask) },
      example.picture ? el("img", { src: example.picture, alt: "", loading: "lazy" }) : el("span", { class: "bare", "aria-hidden": "true" }, "text only"),
      el("span", { dir: "auto" }, example.text))),
  );
  byId("examples").replaceChildren(...items);
}
