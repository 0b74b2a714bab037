// The page: asks the service, shows what it answers, and asks again when the knowledge has changed.

import { byId, el } from "./dom.js";
import { highlighted } from "./answers.js";
import { changes } from "./changes.js";
import { addArticle, editArticle, knownToken, prepareEditor } from "./editor.js";
import { evidence, writeInfluences } from "./evidence.js";
import { experts } from "./experts.js";
import { graph } from "./graph.js";
import { influence, nameOf } from "./influence.js";
import { links } from "./links.js";
import { currentPost, photographAddress, preparePost, showAttachable, showExamples } from "./post.js";
import { attribute, extract, link, removeArticle, state, writeArticle } from "./service.js";

let service = { editing: "unknown" };
let running = null;
let last = null; // the post asked last, and its answer

const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

function summary(answer, seconds) {
  const found = [
    count(answer.mentions.length, "entity", "entities"),
    count(answer.relations.length, "relation", "relations"),
    count(answer.evidence.length, "passage of evidence", "passages of evidence"),
  ];
  return `${found.join(", ")}, in ${seconds.toFixed(1)} s.`;
}

function section(id, heading, lead, ...children) {
  return el("section", { class: "card", "aria-labelledby": `${id}-heading`, id }, el("h2", { id: `${id}-heading`, tabindex: "-1" }, heading), lead ? el("p", { class: "lead" }, lead) : null, children);
}

function answerSection(answer, address) {
  const photo = address ? el("img", { class: "photograph", src: address, alt: "The post’s photograph" }) : null;
  const notes = answer.warnings.length
    ? el("div", { class: "notes" }, el("h3", {}, "Notes"), el("ul", {}, answer.warnings.map((w) => el("li", {}, w))))
    : null;
  const related = answer.relations.length
    ? graph(answer.relations, answer.mentions)
    : el("p", { class: "quiet" }, answer.mentions.length > 1 ? "None was found between the entities." : "A relation needs two entities.");
  const referred = answer.mentions.length
    ? [el("h3", { id: "links-heading" }, "Articles they refer to"), el("p", { class: "quiet", role: "status", id: "links-status" }, "Looking them up…")]
    : null;
  const body = el("div", { class: photo ? "hero pictured" : "hero" },
    el("div", {},
      highlighted(answer.text, answer.mentions),
      answer.mentions.length ? null : el("p", { class: "quiet" }, "No entity was found."),
      el("h3", {}, "Relations"), related, referred, notes),
    photo);
  return section("answer", "The answer", null, body);
}

const onEdit = () => (service.editing === "on" ? edit : null);

async function edit(piece) {
  byId("error").textContent = "";
  try {
    await editArticle(piece);
  } catch (problem) {
    failed(problem);
  }
}

function show(answer, changed) {
  const waiting = el("p", { class: "quiet", role: "status", id: "influence-status" }, "Each passage is left out in turn to see what it does…");
  byId("results").replaceChildren(
    ...(changed ? [changed] : []),
    answerSection(answer, photographAddress()),
    section("experts", "What each expert says", "Each would answer alone as shown here; the gate weighs them anew for every post.", experts(answer)),
    section("influence", "What the answer rests on", "Points of confidence that an answer loses without a passage, all others being there.", waiting),
    section("evidence", "Evidence", null, el("p", { class: "lead", id: "editing" }, editingWords()), evidence(answer, onEdit())),
  );
}

function editingWords() {
  return service.editing === "on" ? "Every article can be edited; the post is then read again." : `The knowledge cannot be edited here: ${service.why ?? "the service does not say why"}.`;
}

async function showLinks(post, answer, signal) {
  if (!answer.mentions.length) return;
  try {
    const said = await link(post, signal);
    if (said.corpus !== answer.corpus) throw new Error("The knowledge has changed meanwhile: extract again to see them.");
    const status = byId("links-status");
    const some = said.mentions.filter((m) => m.link.article !== null).length;
    status.textContent = `${some} of ${said.mentions.length} ${some === 1 ? "has" : "have"} an article in the knowledge. Shares say how likely each answer is.`;
    status.after(links(said.mentions));
  } catch (problem) {
    if (problem.name !== "AbortError") byId("links-status").textContent = problem.message;
  }
}

async function showInfluences(post, answer, signal) {
  try {
    const said = await attribute(post, signal);
    if (said.corpus !== answer.corpus) throw new Error("The knowledge has changed meanwhile: extract again to see what the answer rests on.");
    byId("influence-status").replaceWith(answer.mentions.length ? influence(answer, said.influences) : el("p", { class: "quiet" }, "There is no answer to explain."));
    writeInfluences(said.influences, (i) => nameOf(i, answer));
  } catch (problem) {
    if (problem.name !== "AbortError") byId("influence-status").textContent = problem.message;
  }
}

function failed(problem) {
  if (problem.name !== "AbortError") byId("error").textContent = problem.message;
}

function busy(is) {
  byId("results").setAttribute("aria-busy", String(is));
  byId("extract").classList.toggle("busy", is);
}

// Ask for a post. `changed`: what to show of a change of the knowledge, from the new answer.
async function ask(post, changed = () => null) {
  running?.abort();
  const own = (running = new AbortController());
  byId("error").textContent = "";
  byId("status").textContent = "Reading the post…";
  busy(true);
  const begun = performance.now();
  try {
    const answer = await extract(post, own.signal);
    const seconds = (performance.now() - begun) / 1000;
    const panel = changed(answer);
    last = { post, answer };
    show(answer, panel);
    byId("status").textContent = summary(answer, seconds);
    byId(panel ? "changes-heading" : "answer-heading").focus();
    showLinks(post, answer, own.signal);
    showInfluences(post, answer, own.signal);
    showState();
  } catch (problem) {
    byId("status").textContent = "";
    failed(problem);
  } finally {
    if (running === own) busy(false);
  }
}

async function askCurrent() {
  const post = currentPost();
  if (typeof post === "string") {
    byId("error").textContent = post;
    byId("text").focus();
    return;
  }
  await ask(post);
}

async function undo({ article, before }) {
  byId("undo").disabled = true;
  try {
    if (before) await writeArticle(before, knownToken());
    else await removeArticle(article.id, knownToken());
    await saved({ article, before, undone: true });
  } catch (problem) {
    byId("undo").disabled = false;
    failed(problem);
  }
}

async function saved(change) {
  const { article, before, undone } = change;
  const words = undone
    ? `“${article.title}” is as it was before.`
    : `“${article.title}” was ${before ? "changed" : "added"}.`;
  if (!last) {
    byId("status").textContent = words;
    return;
  }
  const old = last.answer;
  await ask(last.post, (answer) => changes(old, answer, words, undone ? null : () => undo(change)));
}

async function showState() {
  try {
    service = await state();
  } catch (problem) {
    failed(problem);
    return;
  }
  const corpus = service.corpus ?? "none";
  const knowledge = service.editing === "on" ? "can be edited" : "read only";
  byId("state").replaceChildren(
    ...[["Model", service.model], ["Knowledge", corpus], ["Editing", knowledge]].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
  byId("add").disabled = service.editing !== "on";
  byId("add").title = service.editing === "on" ? "" : editingWords();
}

prepareEditor(saved);
preparePost();
byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  askCurrent();
});
byId("add").addEventListener("click", addArticle);
await showState();
showAttachable(service.attachable ?? []);
showExamples(askCurrent).catch(failed);
