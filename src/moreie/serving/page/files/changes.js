// Before and after a change of the knowledge, side by side.

import { el, percent, points } from "./dom.js";
import { highlighted, mentionKey, relationWords } from "./answers.js";

const CUT = 110;
const pair = (one, other) => [...new Set([...one.keys(), ...other.keys()])].map((key) => [one.get(key), other.get(key)]);
const keyed = (items, key) => new Map(items.map((item) => [key(item), item]));

function words(before, after, said) {
  if (!before) return `new: ${said(after)}`;
  if (!after) return `gone: was ${said(before)}`;
  if (before.type !== after.type) return `${said(before)} → ${said(after)}`;
  return `${percent(before.confidence)} → ${percent(after.confidence)}`;
}

function confidenceRow(name, before, after, said) {
  const change = (after?.confidence ?? 0) - (before?.confidence ?? 0);
  const other = !before || !after || before.type !== after.type;
  if (!other && Math.abs(change) < 0.0005) return null;
  return el(
    "tr",
    { class: other ? "other" : null },
    el("th", { scope: "row" }, name),
    el("td", {}, words(before, after, said)),
    el("td", { class: "number" }, other ? "" : `${points(change)} points`),
  );
}

function rows(before, after) {
  const relationKey = (answer) => (r) => `${mentionKey(answer.mentions[r.head])} ${mentionKey(answer.mentions[r.tail])}`;
  const said = (m) => `${m.type} ${percent(m.confidence)}`;
  const found = pair(keyed(before.mentions, mentionKey), keyed(after.mentions, mentionKey)).map(([b, a]) =>
    confidenceRow((a ?? b).text, b, a, said),
  );
  const related = pair(keyed(before.relations, relationKey(before)), keyed(after.relations, relationKey(after))).map(([b, a]) =>
    confidenceRow(a ? relationWords(a, after.mentions) : relationWords(b, before.mentions), b, a, said),
  );
  return [["Answers", [...found, ...related].filter(Boolean)], ["Evidence", evidenceRows(before, after)]];
}

function evidenceRow(evidence, said) {
  const text = evidence.sentence ?? evidence.text;
  const short = text.length > CUT ? `${text.slice(0, CUT)}…` : text;
  return el("tr", {}, el("th", { scope: "row" }, evidence.title, el("span", { class: "quiet" }, ` ${short}`)), el("td", {}, said), el("td", {}));
}

// What is new, what is gone, whose score has changed; passages that others only pushed up or down are counted.
function evidenceRows(before, after) {
  const key = (e) => `${e.retriever}\u0000${e.article}\u0000${e.text}`;
  const pairs = pair(keyed(before.evidence, key), keyed(after.evidence, key));
  const fresh = pairs.filter(([b]) => !b).map(([, a]) => evidenceRow(a, `new, rank ${a.rank}, score ${a.score.toFixed(2)}`));
  const gone = pairs.filter(([, a]) => !a).map(([b]) => evidenceRow(b, `gone, was rank ${b.rank}`));
  const kept = pairs.filter(([b, a]) => b && a);
  const rescored = ([b, a]) => Math.abs(b.score - a.score) >= 0.05;
  const scores = kept.filter(rescored).map(([b, a]) =>
    evidenceRow(a, `score ${b.score.toFixed(2)} → ${a.score.toFixed(2)}, rank ${b.rank === a.rank ? a.rank : `${b.rank} → ${a.rank}`}`),
  );
  const pushed = kept.filter((one) => !rescored(one) && one[0].rank !== one[1].rank).length;
  const rest = pushed
    ? [el("tr", {}, el("th", { scope: "row", colspan: 3, class: "quiet" }, `${pushed} ${pushed === 1 ? "other keeps its score and changes its" : "others keep their scores and change their"} rank`))]
    : [];
  return [...fresh, ...gone, ...scores, ...rest];
}

function side(name, answer, other) {
  const related = answer.relations.map((r) => el("li", {}, relationWords(r, answer.mentions), " ", el("span", { class: "sure" }, percent(r.confidence))));
  return el(
    "div",
    { class: "side" },
    el("h3", {}, name),
    highlighted(answer.text, answer.mentions, other.mentions),
    related.length ? el("ul", { class: "plain" }, related) : el("p", { class: "quiet" }, "no relation"),
  );
}

export function changes(before, after, what, undo) {
  const groups = rows(before, after).filter(([, own]) => own.length);
  const tables = groups.map(([name, own]) =>
    el("table", { class: "moved" }, el("caption", {}, name), el("tbody", {}, own)),
  );
  return el(
    "section",
    { class: "card changes", "aria-labelledby": "changes-heading" },
    el("h2", { id: "changes-heading", tabindex: "-1" }, "What the change did"),
    el("p", { class: "lead" }, what, " ", undo ? el("button", { type: "button", class: "link", id: "undo", click: undo }, "Undo it") : null),
    el("div", { class: "sides" }, side("Before", before, after), side("After", after, before)),
    tables.length ? tables : el("p", { class: "quiet" }, "Nothing moved: neither the answers nor what was read for them."),
  );
}
