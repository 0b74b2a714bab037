// An article as it is edited: paragraphs keep their links where the text around them has stayed.

const points = (text) => Array.from(text);

// Links lie at code points of the text. Those in what both texts begin or end with are kept.
export function movedLinks(links, before, after) {
  const old = points(before);
  const now = points(after);
  const most = Math.min(old.length, now.length);
  let head = 0;
  while (head < most && old[head] === now[head]) head += 1;
  let tail = 0;
  while (tail < most - head && old[old.length - 1 - tail] === now[now.length - 1 - tail]) tail += 1;
  const shift = now.length - old.length;
  return links.flatMap((link) => {
    if (link.end <= head) return [link];
    if (link.start >= old.length - tail) return [{ ...link, start: link.start + shift, end: link.end + shift }];
    return [];
  });
}

// The article with a new title and new texts in the places of its paragraphs; empty ones are dropped, more are added.
export function edited(article, title, texts) {
  const paragraphs = texts.flatMap((text, place) => {
    const old = article.paragraphs[place];
    if (!text.trim()) return [];
    if (!old) return [{ text: text.trim(), introduction: place === 0 }];
    return [{ ...old, text, links: movedLinks(old.links ?? [], old.text, text) }];
  });
  return { ...article, title: title.trim(), paragraphs };
}

export function newId() {
  return `page-${crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("")}`;
}
