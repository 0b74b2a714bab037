// The graph of relations: mentions on the left, each relation a label on the right, drawn from head to tail.

import { el, svg, percent } from "./dom.js";
import { relationName, relationWords, typeClass } from "./answers.js";

const ROW = 58;
const BOX = 38;
const NARROW = 460;
const pen = document.createElement("canvas").getContext("2d");

// The text, or as much of it as goes into a width, in the page's font at a size (both in pixels).
function fitting(text, width, size) {
  pen.font = `500 ${size}px ${getComputedStyle(document.body).fontFamily}`;
  if (pen.measureText(text).width <= width) return text;
  const points = Array.from(text);
  while (points.length > 1 && pen.measureText(`${points.join("")}…`).width > width) points.pop();
  return `${points.join("").trimEnd()}…`;
}

function curve(from, to) {
  const middle = (from.x + to.x) / 2;
  return `M${from.x},${from.y} C${middle},${from.y} ${middle},${to.y} ${to.x},${to.y}`;
}

function node(mention, x, y, width) {
  const label = svg("text", { x: x + 12, y: y + BOX / 2, class: "node-text" }, fitting(mention.text, width - 22, 13.5));
  return svg(
    "g",
    { class: `node ${typeClass(mention)}` },
    svg("title", {}, `${mention.text} (${mention.type})`),
    svg("rect", { x, y, width, height: BOX, rx: 8 }),
    label,
  );
}

// The relation's name and its confidence: beside each other, or on a narrow figure below each other.
function label(relation, x, top, width, narrow) {
  const sure = percent(relation.confidence);
  const name = fitting(relationName(relation.type), width - (narrow ? 18 : 64), 13);
  if (!narrow) return svg("text", { x, y: top + BOX / 2, class: "label" }, name, svg("tspan", { class: "sure", dx: 6 }, sure));
  return svg(
    "text",
    { class: "label" },
    svg("tspan", { x, y: top + BOX / 2 - 7 }, name),
    svg("tspan", { x, y: top + BOX / 2 + 9, class: "sure" }, sure),
  );
}

function drawn(relations, mentions, width) {
  const joined = mentions.map((_, i) => i).filter((i) => relations.some((r) => r.head === i || r.tail === i));
  const place = new Map(joined.map((mention, row) => [mention, row]));
  const middle = (relation) => (place.get(relation.head) + place.get(relation.tail)) / 2;
  const ordered = [...relations].sort((a, b) => middle(a) - middle(b));
  const rows = Math.max(joined.length, ordered.length);
  const height = rows * ROW + 8;
  const start = (count) => 8 + ((rows - count) * ROW) / 2;
  const narrow = width < NARROW;
  const left = Math.min(250, width * 0.41);
  const right = Math.min(210, width * 0.41);
  const y = (mention) => start(joined.length) + place.get(mention) * ROW;
  // The ends of lines spread along a mention's side, in the order of their labels.
  const ends = new Map(joined.map((mention) => [mention, ordered.filter((r) => r.head === mention || r.tail === mention)]));
  const port = (mention, relation) => {
    const own = ends.get(mention);
    return { x: 2 + left, y: y(mention) + (BOX * (own.indexOf(relation) + 1)) / (own.length + 1) };
  };
  const lines = ordered.map((relation, row) => {
    const top = start(ordered.length) + row * ROW;
    const x = width - right - 2;
    const upwards = place.get(relation.head) < place.get(relation.tail) ? -6 : 6;
    const head = port(relation.head, relation);
    const tail = port(relation.tail, relation);
    const out = { x, y: top + BOX / 2 + upwards };
    const back = { x, y: top + BOX / 2 - upwards };
    return svg(
      "g",
      { class: "relation" },
      svg("title", {}, `${relationWords(relation, mentions)} (${relation.type})`),
      svg("path", { d: curve(head, out), class: "line" }),
      svg("circle", { cx: head.x, cy: head.y, r: 3.5 }),
      svg("path", { d: curve(back, { x: tail.x + 7, y: tail.y }), class: "line", "marker-end": "url(#arrow)" }),
      svg("rect", { x, y: top, width: right, height: BOX, rx: BOX / 2 }),
      label(relation, x + right / 2, top, right, narrow),
    );
  });
  const arrow = svg(
    "marker",
    { id: "arrow", viewBox: "0 0 8 8", refX: 1, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto", markerUnits: "userSpaceOnUse" },
    svg("path", { d: "M0,0 L8,4 L0,8 z", class: "tip" }),
  );
  return svg(
    "svg",
    { class: "graph", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true", focusable: "false" },
    svg("defs", {}, arrow),
    lines,
    joined.map((mention) => node(mentions[mention], 2, y(mention), left)),
  );
}

// A figure that is drawn anew when its width changes. Readers that do not see it get the relations as a list.
export function graph(relations, mentions) {
  const words = relations.map((relation) =>
    el("li", {}, `${relationWords(relation, mentions)}, ${percent(relation.confidence)}`),
  );
  const canvas = el("div", { class: "canvas" });
  const figure = el("div", {}, canvas, el("ul", { class: "unseen" }, words));
  let last = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (!width || width === last) return;
    last = width;
    canvas.replaceChildren(drawn(relations, mentions, width));
  }).observe(canvas);
  return figure;
}
