// Shared by all parts of the page: state, elements, translations, and calls to the server.

export const $ = (id) => document.getElementById(id);

export const state = {
  name: null, operator: false, rooms: [], room: null, table: null,
  socket: null, retry: 0,
  photos: [],              // {file, url} in the tray
  albums: new Map(),       // job id -> object URLs of the photos sent with it; they never come back from the server
  messages: new Map(),     // message id -> its element
  sources: new Map(),      // completion source -> {at, found}
  options: [], chosen: -1, moved: false,
  sent: [],
};

// Sentences are in English here; the server sends their translations

/** The sentence in the reader's language, with its {placeholders} filled in. */
export function say(sentence, values = {}) {
  return filled(state.table?.catalog[sentence] ?? sentence, values);
}

/** Like `say`, in the singular or plural form for `count`. */
export function several(one, many, count, values = {}) {
  const forms = state.table?.catalog[one] ?? [one, many];
  const form = new Intl.PluralRules(document.documentElement.lang).select(count) === "one" ? forms[0] : forms.at(-1);
  return filled(form, { count, ...values });
}

const filled = (text, values) => text.replace(/\{(\w+)\}/g, (placeholder, name) => values[name] ?? placeholder);

// Building elements: text is only ever set as text, never as HTML.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function face(name) {
  if (!name) return h("span", { class: "face bot", "aria-hidden": "true" }, icon("bot"));
  const parts = name.split(/\s+/);
  const initials = (parts.length > 1 ? [...parts[0]][0] + [...parts.at(-1)][0] : [...name].slice(0, 2).join("")).toUpperCase();
  let hash = 7;
  for (const letter of name.toLowerCase()) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return h("span", { class: `face c${hash % 8}`, "aria-hidden": "true", title: name }, initials);
}

// Talking to the server

const KEY = "Idempotency-Key";

/** A key for one message or press. The server handles requests with the same key once. */
export const requestKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export async function call(path, body, key) {
  const request = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json", ...(key && { [KEY]: key }) }, body: JSON.stringify(body),
  };
  const response = await fetch(path, request);
  if (!response.ok) throw new Error(`${response.status}`);
  return response.json();
}

export const inRoom = (path) => `/api/rooms/${encodeURIComponent(state.room)}/${path}`;

export function send(text, photos, consent, key, progress) {
  // XMLHttpRequest, since fetch cannot tell how far an upload is.
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("text", text);
    form.append("consent", consent ? "yes" : "no");
    for (const photo of photos) form.append("photo", photo.file, "photo");
    const request = new XMLHttpRequest();
    request.open("POST", inRoom("say"));
    request.setRequestHeader(KEY, key);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => progress(event.loaded / Math.max(1, event.total)));
    request.addEventListener("load", () => request.status === 200 ? resolve(request.response) : reject(new Error(`${request.status}`)));
    request.addEventListener("error", () => reject(new Error("offline")));
    request.send(form);
  });
}
