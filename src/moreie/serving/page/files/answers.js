// What was found, as text with its mentions marked, and answers by name.

import { el, percent } from "./dom.js";

// Offsets count Unicode code points; JavaScript's strings count UTF-16 units.
export function pieces(text, mentions) {
  const points = Array.from(text);
  const parts = [];
  let position = 0;
  for (const mention of [...mentions].sort((a, b) => a.start - b.start)) {
    if (mention.start > position) parts.push({ text: points.slice(position, mention.start).join(""), mention: null });
    parts.push({ text: points.slice(mention.start, mention.end).join(""), mention });
    position = mention.end;
  }
  if (position < points.length) parts.push({ text: points.slice(position).join(""), mention: null });
  return parts;
}

const KNOWN = new Set(["PER", "LOC", "ORG", "MISC"]);

export const typeClass = (mention) => (KNOWN.has(mention.type) ? `t-${mention.type.toLowerCase()}` : "t-other");

const same = (a, b) => a.start === b.start && a.end === b.end && a.type === b.type;

export function mark(mention, text, other = null) {
  const differs = other !== null && !other.some((theirs) => same(mention, theirs));
  return el(
    "mark",
    { class: `${typeClass(mention)}${differs ? " differs" : ""}` },
    text,
    el("span", { class: "tag" }, ` ${mention.type ?? ""} `, el("span", { class: "sure" }, percent(mention.confidence))),
  );
}

// `other`: mentions to compare with; what they do not have is marked as differing.
export function highlighted(text, mentions, other = null) {
  const parts = pieces(text, mentions).map((part) => (part.mention ? mark(part.mention, part.text, other) : part.text));
  return el("p", { class: "text", dir: "auto" }, parts);
}

// `/per/org/member_of` reads "member of".
export const relationName = (type) => type.split("/").filter(Boolean).at(-1).replaceAll("_", " ");

export function relationWords(relation, mentions) {
  return `${mentions[relation.head].text} → ${relationName(relation.type)} → ${mentions[relation.tail].text}`;
}

export function mentionKey(mention) {
  return `${mention.start}:${mention.end}`;
}

// What an expert says otherwise than the mixture, in words; empty where they agree.
export function disagreements(own, mixture) {
  const said = [];
  for (const theirs of mixture) {
    const here = own.find((mention) => mention.start === theirs.start && mention.end === theirs.end);
    if (!here) said.push(`no ${theirs.type} “${theirs.text}”`);
    else if (here.type !== theirs.type) said.push(`“${theirs.text}” is ${here.type}, not ${theirs.type}`);
  }
  for (const mention of own) {
    const there = mixture.some((theirs) => theirs.start === mention.start && theirs.end === mention.end);
    if (!there) said.push(`also ${mention.type} “${mention.text}”`);
  }
  return said;
}
