// The article that each mention refers to, or that it is none of the corpus'.

import { el, percent } from "./dom.js";
import { typeClass } from "./answers.js";

// Only addresses of the web become links: an article may bring any text for one.
export function articleTitle(title, url) {
  const words = title || "(no title)";
  if (!/^https?:\/\//.test(url ?? "")) return words;
  return el("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, words);
}

function line(mention) {
  const { title, article, url, score } = mention.link;
  const none = article === null;
  return el(
    "div",
    { class: none ? "none" : null },
    el("dt", { dir: "auto" }, mention.text, el("span", { class: `tag ${typeClass(mention)}` }, ` ${mention.type ?? ""}`)),
    el("dd", { dir: "auto" }, none ? "no article" : articleTitle(title, url), " ", el("span", { class: "sure" }, percent(score))),
  );
}

export function links(mentions) {
  return el("dl", { class: "links", id: "links" }, mentions.map(line));
}
