// Evidence as cards: what was found by text and by picture, how well it fits, and what it did for the answer.

import { bar, el, points } from "./dom.js";
import { articleTitle } from "./links.js";

const SHOWN = 4;
const LONG = 420;
const AROUND = 160;
const LEAST = 0.005;
const NAMES = { text: "Found by the text", image: "Found by the photograph" };
const SCORES = { text: "BM25", image: "similarity" };

function marked(text, sentence) {
  const at = sentence ? text.indexOf(sentence) : -1;
  if (at < 0) return [text];
  return [text.slice(0, at), el("em", {}, sentence), text.slice(at + sentence.length)];
}

// A long passage is cut down to what stands around the sentence that was found; the whole of it is one key away.
function passage(evidence) {
  const { text, sentence } = evidence;
  const whole = (kind) => el("p", { class: kind, dir: "auto" }, marked(text, sentence));
  if (text.length <= LONG) return whole("passage");
  const at = Math.max(0, sentence ? text.indexOf(sentence) : 0);
  const from = at > AROUND ? text.lastIndexOf(" ", at - AROUND / 2) + 1 : 0;
  const least = Math.max(from + LONG * 0.75, at + Math.min(sentence?.length ?? 0, LONG));
  const space = text.indexOf(" ", least);
  const to = space < 0 ? text.length : space;
  const part = `${from ? "… " : ""}${text.slice(from, to)}${to < text.length ? " …" : ""}`;
  return [
    el("p", { class: "passage", dir: "auto" }, marked(part, sentence)),
    el("details", {}, el("summary", {}, "The whole passage"), whole("passage")),
  ];
}

function card(evidence, place, best, onEdit) {
  const share = evidence.retriever === "image" ? evidence.score : best > 0 ? evidence.score / best : 0;
  const picture = evidence.image
    ? el("img", {
        src: `/page/pictures?${new URLSearchParams({ file: evidence.image })}`,
        alt: `The picture of the article ${evidence.title}`,
        loading: "lazy",
      })
    : null;
  const score = SCORES[evidence.retriever]
    ? el(
        "p",
        { class: "score" },
        el("span", {}, `${SCORES[evidence.retriever]} `, el("b", {}, evidence.score.toFixed(2))),
        bar(share, "thin"),
      )
    : null;
  const edit = onEdit && SCORES[evidence.retriever]
    ? el("button", { type: "button", class: "link edit", click: () => onEdit(evidence), "aria-label": `Edit this article: ${evidence.title}` }, "Edit this article")
    : null;
  return el(
    "li",
    { class: `piece${picture ? " pictured" : ""}`, id: `evidence-${place}`, tabindex: "-1" },
    picture,
    el(
      "div",
      {},
      el("h4", {}, el("span", { class: "rank" }, `${evidence.rank}`), " ", articleTitle(evidence.title, evidence.url)),
      score,
      passage(evidence),
      el("ul", { class: "influences plain", id: `influences-${place}`, hidden: true }),
      edit,
    ),
  );
}

// A column for each retriever; the first few are shown, the rest on demand.
export function evidence(answer, onEdit) {
  const columns = [];
  const retrievers = [...new Set(["text", ...answer.evidence.map((e) => e.retriever)])];
  for (const retriever of retrievers) {
    const own = answer.evidence.map((e, place) => [e, place]).filter(([e]) => e.retriever === retriever);
    const best = Math.max(0, ...own.map(([e]) => e.score));
    const cards = own.map(([e, place]) => card(e, place, best, onEdit));
    const heading = NAMES[retriever] ?? `Came with the post: ${retriever}`;
    const parts = [el("h3", {}, heading, " ", el("span", { class: "count" }, `${own.length}`))];
    if (!cards.length) parts.push(el("p", { class: "quiet" }, "Nothing. The notes say why."));
    else parts.push(el("ol", { class: "pieces" }, cards.slice(0, SHOWN)));
    if (cards.length > SHOWN) {
      const rest = el("ol", { class: "pieces", start: SHOWN + 1 }, cards.slice(SHOWN));
      parts.push(el("details", {}, el("summary", {}, `${cards.length - SHOWN} more`), rest));
    }
    columns.push(el("div", { class: "column" }, parts));
  }
  return el("div", { class: "columns" }, columns);
}

// What each passage does, written onto the cards that are there.
export function writeInfluences(influences, nameOf) {
  const byPlace = influences.reduce((all, i) => all.set(i.evidence, [...(all.get(i.evidence) ?? []), i]), new Map());
  for (const [place, own] of byPlace) {
    const list = document.getElementById(`influences-${place}`);
    const told = own.filter((i) => Math.abs(i.change) >= LEAST).sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
    if (!list || !told.length) continue;
    list.hidden = false;
    list.replaceChildren(
      ...told.slice(0, 4).map((i) =>
        el("li", {}, el("b", { class: i.change > 0 ? "for" : "against" }, points(i.change)), ` ${i.change > 0 ? "for" : "against"} ${nameOf(i)}`),
      ),
    );
  }
}
