// Which passage changed which answer: for each answer the passages that move its confidence most.

import { bar, el, percent, points } from "./dom.js";
import { relationWords } from "./answers.js";

const SHOWN = 3;
const LEAST = 0.001;

function towards(place) {
  const card = document.getElementById(`evidence-${place}`);
  if (!card) return;
  const closed = card.closest("details");
  if (closed) closed.open = true;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function line(influence, answer, largest) {
  const evidence = answer.evidence[influence.evidence];
  const name = evidence.title || evidence.retriever;
  return el(
    "li",
    { class: influence.change > 0 ? "for" : "against" },
    el("span", { class: "change" }, points(influence.change)),
    bar(Math.abs(influence.change) / largest, "thin"),
    el("a", { href: `#evidence-${influence.evidence}`, click: (event) => { event.preventDefault(); towards(influence.evidence); } }, name),
    el("span", { class: "by" }, evidence.retriever),
  );
}

export function nameOf(influence, answer) {
  return influence.mention === null
    ? relationWords(answer.relations[influence.relation], answer.mentions)
    : answer.mentions[influence.mention].text;
}

export function influence(answer, influences) {
  const answers = [
    ...answer.mentions.map((m, i) => [m.text, m.confidence, influences.filter((x) => x.mention === i)]),
    ...answer.relations.map((r, i) => [relationWords(r, answer.mentions), r.confidence, influences.filter((x) => x.relation === i)]),
  ];
  const moved = (own) => own.filter((i) => Math.abs(i.change) >= LEAST).sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
  const largest = Math.max(LEAST, ...influences.map((i) => Math.abs(i.change)));
  const blocks = answers.map(([name, sure, own]) =>
    el(
      "li",
      {},
      el("h3", {}, name, " ", el("span", { class: "sure" }, percent(sure))),
      moved(own).length
        ? el("ul", { class: "moves plain" }, moved(own).slice(0, SHOWN).map((i) => line(i, answer, largest)))
        : el("p", { class: "quiet" }, own.length ? "No single passage moves it: it stands on the post itself, or on several that say the same." : "No expert read a passage for it."),
    ),
  );
  return el("ul", { class: "answers plain" }, blocks);
}
