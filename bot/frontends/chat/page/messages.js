// Messages: what the server says, as elements.

import { $, call, face, h, icon, inRoom, requestKey, say, several, state } from "./base.js";
import { compose, hint } from "./composer.js";
import { lightbox } from "./gallery.js";

export const atEnd = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 120;
export function toEnd() { $("log").scrollTop = $("log").scrollHeight; $("newest").hidden = true; }

export function render(message, before) {
  const { author, body } = message;
  const at = new Date(message.at);
  const follows = before?.dataset.author === author && !before.classList.contains("private")
    && at - new Date(before.dataset.at) < 180000;
  const mine = author !== "" && author.toLowerCase() === state.name.toLowerCase();
  const content = author === "" ? boxOf(body, message.id) : bubbleOf(body);
  const head = h("div", { class: "who" }, h("b", {}, author || "Avatars"),
    h("time", { datetime: message.at }, at.toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" })));
  const element = h("article", { class: `message${mine ? " mine" : ""}${follows ? " follows" : ""}` },
    follows ? h("span") : face(author), h("div", {}, !follows && head, content));
  element.dataset.author = author;
  element.dataset.at = message.at;
  if (body.job) element.dataset.job = body.job;
  return element;
}

function bubbleOf(body) {
  const command = /^\/\S+/.exec(body.text);
  const photos = body.photos ? h("div", { class: "attached" }, icon("photo"), several("{count} photo", "{count} photos", body.photos)) : null;
  if (!command) return h("div", { class: "bubble" }, body.text, photos);
  return h("div", { class: "bubble" }, h("span", { class: "command" }, command[0]), body.text.slice(command[0].length), photos);
}

function boxOf(body, id) {
  const rich = body.pictures.length || body.verdicts.length || body.progress || body.buttons.length;
  const quiet = !rich && body.job && body.tone === "plain";
  const wide = body.pictures.length > 1 || body.verdicts.length || body.progress;
  const box = h("div", { class: `box ${body.tone}${quiet ? " quiet" : rich ? "" : " plain-text"}${wide ? " wide" : ""}` });
  const prompt = body.prompt && !body.prompt.startsWith("/") ? h("div", { class: "prompt" }, body.prompt) : null;
  if (quiet) box.append(body.text);
  else if (body.progress) box.append(...[prompt, progressOf(body.progress)].filter(Boolean));
  else box.append(...[prompt, textOf(body.text)].filter(Boolean));
  if (body.verdicts.length) box.append(verdictsOf(body));
  if (body.pictures.length) box.append(picturesOf(body));
  if (body.remark) box.append(h("div", { class: "remark" }, body.remark));
  if (body.files?.length) box.append(h("div", { class: "row" }, body.files.map(fileOf)));
  if (body.buttons.length) {
    box.append(h("div", { class: "row" }, body.buttons.map((button) =>
      h("button", { type: "button", class: `button ${button.role}`, "data-action": button.action,
        onclick: (event) => press(event.currentTarget, button.action, id) }, button.label))));
  }
  return box;
}

function textOf(text) {
  // Commands inside a text can be taken over with a click.
  const lines = text.split("\n");
  if (lines.length > 3 && lines.some((line) => line.startsWith("/"))) {
    const list = h("div", { class: "help" });
    for (let i = 1; i < lines.length; i += 1) {
      const line = lines[i];
      if (!line.startsWith("/")) { list.append(h("b", {}, line)); continue; }
      i += 1;
      list.append(h("button", { type: "button", onclick: () => compose(line) }, h("code", {}, line), h("span", {}, (lines[i] || "").trim())));
    }
    return h("div", {}, lines[0], list);
  }
  return h("div", { class: "says" }, text);
}

function progressOf(progress) {
  const waiting = progress.fraction === null;
  const percent = waiting ? null : Math.round(progress.fraction * 100);
  const fill = h("i");
  if (!waiting) fill.style.width = `${percent}%`;
  const right = Number.isInteger(progress.position) ? (progress.position <= 1 ? say("next in line") : say("number {number} in line", { number: progress.position }))
    : waiting ? "" : `${percent} %`;
  const below = [progress.step !== null && say("step {step} of {steps}", { step: progress.step, steps: progress.steps }),
    progress.seconds_left !== null && say("about {span} left", { span: duration(progress.seconds_left) })].filter(Boolean).join(" · ");
  return h("div", { class: "progress", "aria-live": "off" },
    h("div", { class: "top" }, h("b", {}, progress.label), h("span", {}, right)),
    h("div", { class: `bar${waiting ? " waiting" : ""}`, role: "progressbar", "aria-label": progress.label,
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": percent }, fill),
    below && h("div", { class: "below" }, below));
}

function duration(seconds) {
  const rounded = Math.max(0, Math.round(seconds));
  if (rounded < 60) return say("{seconds} s", { seconds: rounded });
  const minutes = Math.max(1, Math.round(rounded / 60));
  if (minutes < 60) return say("{minutes} min", { minutes });
  return say("{hours} h {minutes} min", { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
}

function verdictsOf(body) {
  const urls = state.albums.get(body.job) || [];
  return h("ul", { class: "verdicts", "aria-label": say("Photo check") }, body.verdicts.map((verdict) => {
    const tile = h("div", { class: "tile" }, `${verdict.number}`);
    const url = urls[verdict.number - 1];
    if (url) tile.append(h("img", { src: url, alt: "", onerror: (event) => event.target.remove() }));
    tile.append(h("span", { class: "mark" }, icon(verdict.tone === "trouble" ? "close" : verdict.tone)));
    return h("li", { class: `verdict ${verdict.tone}`, title: `#${verdict.number} ${verdict.text}` }, tile,
      h("span", {}, `#${verdict.number} ${verdict.text}`));
  }));
}

function picturesOf(body) {
  const urlOf = (picture) => inRoom(picture.key);
  const shown = body.pictures.filter((picture) => !picture.gone);
  const size = body.progress ? " sample one" : body.pictures.length === 1 ? " one" : "";
  return h("div", { class: `pictures${size}` }, body.pictures.map((picture) => {
    if (picture.gone) return h("div", { class: "picture gone" }, say("erased"));
    const show = () => lightbox.open(shown.map((one) => ({ ...one, url: urlOf(one) })), shown.indexOf(picture));
    return h("button", { type: "button", class: "picture", onclick: show, "aria-label": say("Open: {picture}", { picture: picture.text }) },
      h("img", { src: urlOf(picture), alt: picture.text, loading: "lazy" }),
      picture.seed !== null && h("span", { class: "seed" }, say("seed {seed}", { seed: picture.seed })));
  }));
}

function fileOf(file) {
  const href = file.content === null ? inRoom(`files/${file.key}`) : URL.createObjectURL(new Blob([file.content]));
  return h("a", { class: "button", href, download: file.name, title: file.text }, icon("save"), file.name);
}

export function welcome() {
  const step = (title, text, act) => h("button", { type: "button", onclick: act }, h("b", {}, title), text);
  return h("div", { class: "empty" }, face(""), h("h2", {}, say("Who should I draw?")),
    h("p", {}, say("A few photos of somebody are enough. Then describe any picture of them.")),
    h("div", { class: "steps" },
      step(say("1 · Photos"), say("Drop {fewest} to {most} photos of one person here, or choose them.", state.table.photos), () => $("files").click()),
      step(say("2 · Train"), say("/train mia7 woman. I check the photos and learn."), () => compose("/train ")),
      step(say("3 · Imagine"), "/imagine mia7 woman in a red hoodie, smiling", () => compose("/imagine "))));
}

export function showPrivate(body, ownText) {
  const log = $("log");
  log.querySelector(".empty")?.remove();
  const at = new Date().toISOString();
  const added = [];
  const add = (message) => {
    const element = render(message, null);
    element.classList.add("private");
    log.append(element);
    added.push(element);
    return element;
  };
  if (ownText) add({ id: null, author: state.name, at, body: { text: ownText } });
  const element = add({ id: null, author: "", at, body });
  element.querySelector(".box").after(h("div", { class: "only-you" }, say("Only you can see this"),
    h("button", { type: "button", onclick: () => { added.forEach((one) => one.remove()); $("text").focus(); } }, say("Dismiss"))));
  if (body.prompt?.startsWith("/")) compose(body.prompt);
  toEnd();
}

const unanswered = new Map();      // presses that got no answer: message and action -> key

export async function press(button, action, id) {
  const row = button.parentElement;
  // A press that got no answer keeps its key when it is tried again, since the server may have received it.
  const pressed = `${state.room} ${id} ${action}`;
  if (!unanswered.has(pressed)) unanswered.set(pressed, requestKey());
  for (const one of row.children) one.disabled = true;
  try {
    const answer = await call(inRoom("press"), { action, message: id }, unanswered.get(pressed));
    unanswered.delete(pressed);
    if (answer.private) showPrivate(answer.private);
    if (answer.spent) { state.sources.clear(); if (id === null) row.remove(); }
  } catch { hint(say("The server did not answer. Please try again.")); }
  for (const one of row.children) one.disabled = false;
}
