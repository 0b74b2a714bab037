// Elements from names, attributes and children. Strings become text nodes: nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

export const byId = (id) => document.getElementById(id);

// A bar of a share between 0 and 1. Sizes are set as properties: the page's policy lets no markup bring styles.
export function bar(share, kind = "") {
  const inner = el("span");
  inner.style.inlineSize = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el("span", { class: `bar ${kind}`, "aria-hidden": "true" }, inner);
}

export const percent = (share) =>
  share > 0.995 && share < 1 ? `${Math.min(100 * share, 99.9).toFixed(1)}%` : `${(100 * share).toFixed(0)}%`;

export function points(change) {
  const size = Math.abs(100 * change);
  const sign = change < 0 ? "−" : "+";
  return `${sign}${size >= 9.95 ? size.toFixed(0) : size.toFixed(1)}`;
}
