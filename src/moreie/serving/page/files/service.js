// Requests to the service, and what went wrong in words.

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const PLAIN = {
  408: "The request took too long to arrive. Try again.",
  413: "The photograph is too large: the service takes 20 MiB.",
  503: "The service is busy or starting. Try again in a moment.",
  504: "The service took too long to answer. Try again.",
};

function words(detail) {
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) return "";
  return detail.map((one) => `${(one.loc ?? []).join(".")}: ${one.msg}`).join("; ");
}

async function asked(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { ...options, headers: { Accept: "application/json", ...options.headers } });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Refusal(0, "The service does not answer. Is it still running? Nothing you wrote is lost.");
  }
  const said = await answer.json().catch(() => null);
  if (answer.ok && said !== null) return said;
  const detail = words(said?.detail) || `The service answered ${answer.status}.`;
  throw new Refusal(answer.status, PLAIN[answer.status] ? `${PLAIN[answer.status]} (${detail})` : detail);
}

function form(post) {
  const body = new FormData();
  body.set("text", post.text);
  if (post.image) body.set("image", post.image, post.image.name || "photograph");
  if (Object.keys(post.attached).length) body.set("attached", JSON.stringify(post.attached));
  return body;
}

export const state = () => asked("/page/state");

export const examples = () => asked("/page/examples");

// The extraction, with each expert's own answers.
export const extract = (post, signal) => asked("/page/extract", { method: "POST", body: form(post), signal });

// The extraction, with what each passage does for each answer.
export function attribute(post, signal) {
  const body = form(post);
  body.set("attribute", "true");
  return asked("/v1/extract", { method: "POST", body, signal });
}

// The extraction, with the article that each mention refers to.
export function link(post, signal) {
  const body = form(post);
  body.set("link", "true");
  return asked("/v1/extract", { method: "POST", body, signal });
}

export async function picture(address, name) {
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) throw new Refusal(answer?.status ?? 0, "The example’s photograph could not be loaded.");
  const blob = await answer.blob();
  return new File([blob], name, { type: blob.type });
}

const place = (id) => `/v1/knowledge/${encodeURIComponent(id)}`;

export const readArticle = (id) => asked(place(id));

function written(method, id, token, article = null) {
  const headers = { Authorization: `Bearer ${token}` };
  if (article) headers["Content-Type"] = "application/json";
  // Without the browser's own credentials: it would ask for a password of its own where the token is refused.
  return asked(place(id), { method, headers, credentials: "omit", body: article ? JSON.stringify(article) : undefined });
}

export const writeArticle = (article, token) => written("PUT", article.id, token, article);

export const removeArticle = (id, token) => written("DELETE", id, token);
