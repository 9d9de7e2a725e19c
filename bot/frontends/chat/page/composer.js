// The composer: the photos to send, the input line, and its completion.

import { $, call, h, icon, inRoom, say, several, state } from "./base.js";

// Photos

export function addPhotos(files) {
  const most = state.table.photos.most;
  let problem = "";
  for (const file of files) {
    if (file.type && !file.type.startsWith("image/")) { problem = say("{file} is not a picture.", { file: file.name }); continue; }
    if (file.size === 0) { problem = say("{file} is empty.", { file: file.name }); continue; }
    if (file.size > state.table.photos.bytes) { problem = say("{file} is larger than {megabytes} MB. Please choose a smaller copy.", { file: file.name, megabytes: state.table.photos.bytes / 1024 / 1024 }); continue; }
    if (state.photos.length === most) { problem = say("{most} photos are enough.", { most }); break; }
    state.photos.push({ file, url: URL.createObjectURL(file) });
  }
  showTray(problem);
  if (state.photos.length && !$("text").value) compose("/train ");
}

function removePhoto(photo) {
  URL.revokeObjectURL(photo.url);
  state.photos = state.photos.filter((other) => other !== photo);
  showTray();
  ($("thumbs").querySelector("button") || $("pick")).focus();
}

export function showTray(problem = "") {
  const { fewest, most } = state.table.photos;
  const count = state.photos.length;
  $("tray").hidden = count === 0 && !problem;
  $("tray-count").textContent = several("{count} photo", "{count} photos", count);
  const missing = fewest - count;
  $("tray-hint").textContent = problem || (missing > 0
    ? say("{missing} more, please: {fewest} to {most} of one person", { missing, fewest, most })
    : say("Good number. Different days and angles work best."));
  $("thumbs").replaceChildren(...state.photos.map((photo, i) => {
    const thumb = h("li", { class: "thumb" },
      h("img", { src: photo.url, alt: say("Photo {number}: {file}", { number: i + 1, file: photo.file.name }), onerror: () => {
        thumb.classList.add("bad");
        thumb.querySelector("img").replaceWith(say("no preview"));
      } }),
      h("button", { type: "button", "aria-label": say("Remove photo {number}", { number: i + 1 }), onclick: () => removePhoto(photo) }, icon("close")));
    return thumb;
  }));
  $("consent").closest("label").hidden = count === 0;
}

/** Take photos out of the tray that were sent. Their previews stay: the photo check shows them. */
export function removeSent(photos) {
  state.photos = state.photos.filter((photo) => !photos.includes(photo));
  $("consent").checked = false;
  showTray();
}

// Composing

export function compose(text) {
  $("text").value = text;
  $("text").focus();
  $("text").setSelectionRange(text.length, text.length);
  grow();
  suggest();
}

export function grow() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, 180)}px`;
}

export function hint(...parts) { $("hint").replaceChildren(...parts); }

// Completion of the word before the cursor

function context() {
  const box = $("text");
  const head = box.value.slice(0, box.selectionStart);
  if (!head.startsWith("/") || box.selectionStart !== box.selectionEnd) return null;
  const word = /\S*$/.exec(head)[0];
  const name = /^\/(\S*)/.exec(head)[1];
  if (!/\s/.test(head)) return { kind: "command", word };
  const command = state.table.commands.find((one) => one.name === name.toLowerCase());
  if (!command) return null;
  const before = head.slice(0, head.length - word.length).trim().split(/\s+/).slice(1);
  const named = /^--(\w+)$/.exec(before.at(-1) || "");
  if (word.startsWith("--")) return { kind: "name", word, command };
  if (named) {
    const option = command.options.find((one) => one.name === named[1]);
    if (option && option.kind !== "flag") return { kind: "value", word, command, option };
  }
  const positional = command.options.filter((one) => one.kind === "word" || one.kind === "text");
  const index = before.findIndex((one) => one.startsWith("--"));
  const position = index === -1 ? before.length : index;
  const option = positional.find((one, i) => i === position || one.kind === "text" && i <= position);
  return { kind: "value", word, command, option };
}

async function completionsOf(option) {
  if (!option || !option.source) return [];
  if (option.source === "choices") return option.choices.map((value) => ({ value, hint: "" }));
  const known = state.sources.get(option.source);
  if (known && Date.now() - known.at < 5000) return known.found;
  const found = await call(inRoom(`complete?source=${option.source}`)).catch(() => []);
  state.sources.set(option.source, { at: Date.now(), found });
  return found;
}

export async function suggest() {
  const now = context();
  explain(now);
  if (!now) return closeOptions();
  let found;
  if (now.kind === "command") found = state.table.commands.filter((one) => !one.operators || state.operator)
    .map((one) => ({ value: `/${one.name}`, hint: one.description }));
  else if (now.kind === "name") {
    const used = $("text").value;
    found = now.command.options.filter((one) => one.kind !== "photos" && !one.required && !used.includes(`--${one.name} `))
      .map((one) => ({ value: `--${one.name}`, hint: one.description }));
  } else found = await completionsOf(now.option);
  if (context()?.word !== now.word) return;
  const typed = now.word.toLowerCase();
  found = found.filter((one) => one.value.toLowerCase().startsWith(typed));
  if (found.length === 1 && found[0].value === typed) found = [];
  if (now.option?.kind === "text" && typed === "" && /\S\s+$/.test($("text").value.replace(/^\/\S+\s*/, ""))) found = [];
  showOptions(found);
}

function explain(now) {
  if (!now || !now.command) return hint(now ? say("Choose a command. Tab completes.") : "");
  const parts = [h("b", {}, `/${now.command.name}`)];
  // A text option takes the rest of the line, so no positional option follows it.
  const text = now.command.options.findIndex((one) => one.kind === "text");
  const placed = (option, i) => option.kind === "word" && (text === -1 || i < text);
  for (const [i, option] of now.command.options.entries()) {
    if (!option.required && !placed(option, i)) continue;
    if (option.name === "consent") continue;
    const current = option === now.option;
    const { fewest, most } = state.table.photos, count = state.photos.length;
    const photos = () => count ? several("{count} photo", "{count} photos", count) : say("{fewest} to {most} photos", { fewest, most });
    const label = option.kind === "photos" ? photos() : current ? `${option.name}: ${option.description}` : option.name;
    parts.push("  ", h("span", { class: current || option.kind === "photos" && !state.photos.length ? "need" : "" }, label));
  }
  const more = now.command.options.filter((option, i) => !option.required && !placed(option, i)).map((option) => `--${option.name}`);
  if (more.length) parts.push(`   ${more.join(" ")}`);
  hint(...parts);
}

function showOptions(found) {
  state.options = found.slice(0, 30);
  state.chosen = found.length ? 0 : -1;
  state.moved = false;
  $("options").replaceChildren(...state.options.map((one, i) =>
    h("li", { role: "option", id: `option-${i}`, onmousedown: (event) => { event.preventDefault(); accept(i); } },
      h("b", {}, one.value), one.hint && h("span", {}, one.hint))));
  $("options").hidden = !found.length;
  mark();
}

function mark() {
  [...$("options").children].forEach((item, i) => item.setAttribute("aria-selected", String(i === state.chosen)));
  const item = $("options").children[state.chosen];
  if (item) { $("text").setAttribute("aria-activedescendant", item.id); item.scrollIntoView({ block: "nearest" }); }
  else $("text").removeAttribute("aria-activedescendant");
}

export const closeOptions = () => showOptions([]);

function accept(index) {
  const box = $("text"), now = context(), option = state.options[index];
  if (!now || !option) return;
  const start = box.selectionStart - now.word.length;
  const tail = box.value.slice(box.selectionStart).replace(/^\s+/, "");
  box.value = `${box.value.slice(0, start)}${option.value} ${tail}`;
  const at = start + option.value.length + 1;
  box.setSelectionRange(at, at);
  grow();
  suggest();
}

/** A key pressed in the line; `submit` sends the line. */
export function onKey(event, submit) {
  const shown = state.options.length > 0;
  if (event.isComposing) return;
  if (shown && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    event.preventDefault();
    state.moved = true;
    const step = event.key === "ArrowDown" ? 1 : -1;
    state.chosen = (state.chosen + step + state.options.length) % state.options.length;
    mark();
  } else if (shown && event.key === "Tab" && !event.shiftKey) {
    event.preventDefault();
    accept(state.chosen);
  } else if (shown && event.key === "Escape") {
    event.preventDefault();
    closeOptions();
  } else if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    // Enter finishes a word that was begun or picked with the arrows, and otherwise sends.
    const now = context();
    if (shown && (state.moved || now?.kind === "command" || now?.kind === "name")) accept(state.chosen);
    else submit();
  } else if (!shown && event.key === "ArrowUp" && !event.currentTarget.value && state.sent.length) {
    event.preventDefault();
    compose(state.sent[0]);
    closeOptions();
  }
}
