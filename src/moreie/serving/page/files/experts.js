// Each expert's own answer beside the mixture's, with its weight in the gate.

import { bar, el, percent } from "./dom.js";
import { disagreements, highlighted, relationWords } from "./answers.js";

function weight(name, share) {
  if (share === undefined) return el("td", { class: "weight" }, "all together");
  return el("td", { class: "weight" }, bar(share), el("span", { class: "number" }, percent(share)));
}

function row(name, share, answer) {
  return el("tr", { class: share === undefined ? "mixture" : null }, el("th", { scope: "row" }, name), weight(name, share), answer);
}

function table(caption, rows) {
  return el(
    "table",
    { class: "experts" },
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ["Expert", "Weight", "Its own answer"].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, rows),
  );
}

const nothing = (words) => el("td", { class: "answer quiet" }, words);

function mentionsCell(answer, own) {
  const said = disagreements(own, answer.mentions);
  const note = said.length ? `Differs: ${said.join("; ")}` : "Agrees";
  return el("td", { class: "answer" }, highlighted(answer.text, own, answer.mentions), el("p", { class: `verdict${said.length ? " differs" : ""}` }, note));
}

function relationsCell(relations, mentions, mixture) {
  if (!relations.length) return nothing("no relation");
  const there = (relation) => mixture.some((r) => r.head === relation.head && r.tail === relation.tail && r.type === relation.type);
  const items = relations.map((relation) =>
    el(
      "li",
      { class: there(relation) ? null : "differs" },
      relationWords(relation, mentions),
      " ",
      el("span", { class: "sure" }, percent(relation.confidence)),
      there(relation) ? null : el("span", { class: "verdict differs" }, " not the mixture’s"),
    ),
  );
  return el("td", { class: "answer" }, el("ul", { class: "plain" }, items));
}

export function experts(answer) {
  const tables = [];
  const entities = Object.entries(answer.gate.entities);
  if (entities.length) {
    const rows = [row("mixture", undefined, el("td", { class: "answer" }, highlighted(answer.text, answer.mentions)))];
    for (const [name, share] of entities) {
      const own = answer.experts.entities[name];
      rows.push(row(name, share, own ? mentionsCell(answer, own) : nothing("had nothing to read")));
    }
    tables.push(table("Entities", rows));
  }
  const relations = Object.entries(answer.gate.relations);
  if (relations.length) {
    const rows = [row("mixture", undefined, relationsCell(answer.relations, answer.mentions, answer.relations))];
    for (const [name, share] of relations) {
      const own = answer.experts.relations[name];
      rows.push(row(name, share, own ? relationsCell(own, answer.mentions, answer.relations) : nothing("had nothing to read")));
    }
    tables.push(table("Relations", rows));
  }
  return tables.length ? el("div", { class: "tables" }, tables) : el("p", { class: "quiet" }, "There was nothing to weigh.");
}
