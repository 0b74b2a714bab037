// The dialogue in which an article of the knowledge is edited or written anew.

import { byId, el } from "./dom.js";
import { edited, newId } from "./article.js";
import { readArticle, writeArticle } from "./service.js";

// In memory only: it is gone when the page is closed or loaded again.
let token = "";
let current = null;
let saved = () => {};

export const knownToken = () => token;

function grow(area) {
  area.style.blockSize = "auto";
  area.style.blockSize = `${Math.min(area.scrollHeight + 2, 320)}px`;
}

function paragraph(text, number, hint) {
  const area = el("textarea", { id: `paragraph-${number}`, dir: "auto", rows: 3, input: (event) => grow(event.target) });
  area.value = text;
  const label = el("label", { for: area.id }, `Paragraph ${number}`, hint ? el("span", { class: "optional" }, ` ${hint}`) : null);
  return el("div", { class: "field" }, label, area);
}

const areas = () => [...byId("paragraphs").querySelectorAll("textarea")];

function filled(article, evidenceText) {
  byId("article-title").value = article.title;
  byId("paragraphs").replaceChildren(
    ...article.paragraphs.map((p, i) => paragraph(p.text, i + 1, p.text === evidenceText ? "the evidence" : "")),
  );
  areas().forEach(grow);
}

function opened(article, heading, note, evidenceText) {
  current = article;
  byId("editor-heading").textContent = heading;
  byId("editor-note").textContent = note;
  byId("editor-error").textContent = "";
  byId("editor-status").textContent = "";
  byId("token-field").hidden = token !== "";
  byId("token").value = "";
  byId("editor").showModal();
  filled(article, evidenceText);
  const own = areas().find((area) => area.value === evidenceText);
  (own ?? byId("article-title")).focus();
}

export async function editArticle(evidence) {
  const article = await readArticle(evidence.article);
  opened(article, "Edit an article", "What you save is in the corpus of this service at once, for everybody.", evidence.text);
}

export function addArticle() {
  const article = { id: newId(), title: "", paragraphs: [{ text: "", introduction: true }] };
  opened({ ...article, added: true }, "Add an article", "A title and at least one paragraph. It can be found at once, by everybody.", null);
}

function complain(said, field) {
  byId("editor-error").textContent = said;
  field?.focus();
}

async function save(event) {
  event.preventDefault();
  complain("", null);
  const { added, ...old } = current;
  const article = edited(old, byId("article-title").value, areas().map((area) => area.value));
  if (!article.title) return complain("An article needs a title.", byId("article-title"));
  if (!article.paragraphs.length) return complain("An article needs some text.", areas()[0]);
  const given = token || byId("token").value.trim();
  if (!given) return complain("A token is needed to change the knowledge.", byId("token"));
  byId("save").disabled = true;
  byId("editor-status").textContent = "Saving…";
  try {
    await writeArticle(article, given);
    token = given;
  } catch (problem) {
    const wrong = problem.status === 401 || problem.status === 403;
    if (wrong) {
      token = "";
      byId("token-field").hidden = false;
      byId("token").value = "";
    }
    return complain(wrong ? `The token was refused: ${problem.message}` : problem.message, wrong ? byId("token") : byId("save"));
  } finally {
    byId("save").disabled = false;
    byId("editor-status").textContent = "";
  }
  byId("editor").close();
  return saved({ article, before: added ? null : old });
}

// `onSaved` hears the article as it is now, and as it was (null for a new one).
export function prepareEditor(onSaved) {
  saved = onSaved;
  byId("editor-form").addEventListener("submit", save);
  byId("cancel").addEventListener("click", () => byId("editor").close());
  byId("more").addEventListener("click", () => {
    const field = paragraph("", areas().length + 1, "");
    byId("paragraphs").append(field);
    field.querySelector("textarea").focus();
  });
}
