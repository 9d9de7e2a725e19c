"use strict";

// The page of the local chat: it renders what the server says and sends what the person does. No library, no build.

const $ = (id) => document.getElementById(id);

const state = {
  name: null, rooms: [], room: null, table: null,
  socket: null, retry: 0,
  photos: [],              // {file, url} in the tray
  albums: new Map(),       // job id -> object URLs of the photos sent with it; they never come back from the server
  messages: new Map(),     // message id -> its element
  sources: new Map(),      // completion source -> {at, words}
  options: [], chosen: -1, moved: false,
  sent: [], recalled: -1,
};

// Building elements: text is only ever set as text, never as HTML.

function h(tag, attributes = {}, ...children) {
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

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

function face(name) {
  if (!name) return h("span", { class: "face bot", "aria-hidden": "true" }, icon("bot"));
  const words = name.split(/\s+/);
  const initials = (words.length > 1 ? [...words[0]][0] + [...words.at(-1)][0] : [...name].slice(0, 2).join("")).toUpperCase();
  let hash = 7;
  for (const letter of name.toLowerCase()) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return h("span", { class: `face c${hash % 8}`, "aria-hidden": "true", title: name }, initials);
}

// Talking to the server

async function call(path, body) {
  const request = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, request);
  if (!response.ok) throw new Error(`${response.status}`);
  return response.json();
}

const inRoom = (path) => `/api/rooms/${encodeURIComponent(state.room)}/${path}`;

function say(text, photos, consent, progress) {
  // XMLHttpRequest, since fetch cannot tell how far an upload is.
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("text", text);
    form.append("consent", consent ? "yes" : "no");
    for (const photo of photos) form.append("photo", photo.file, "photo");
    const request = new XMLHttpRequest();
    request.open("POST", inRoom("say"));
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => progress(event.loaded / Math.max(1, event.total)));
    request.addEventListener("load", () => request.status === 200 ? resolve(request.response) : reject(new Error(`${request.status}`)));
    request.addEventListener("error", () => reject(new Error("offline")));
    request.send(form);
  });
}

// Logging in and rooms

async function start() {
  setTheme(localStorage.getItem("theme"));
  const [me, table] = await Promise.all([call("/api/me"), call("/api/commands")]);
  state.table = table;
  $("consent-text").textContent = table.consent;
  const linked = location.pathname.startsWith("/r/") ? decodeURIComponent(location.pathname.slice(3)) : null;
  if (!me.name) {
    if (linked) $("first-room").value = linked;
    $("welcome").hidden = false;
    $("name").focus();
    return;
  }
  await enter(me, linked || me.rooms[0] || "studio");
}

async function enter(me, room) {
  state.name = me.name;
  await join(room);
  $("welcome").hidden = true;
  $("app").hidden = false;
  $("my-name").textContent = me.name;
  $("my-face").replaceChildren(face(me.name));
  $("text").focus();
}

async function join(name) {
  const answer = await call("/api/rooms", { name });
  if (answer.private) { hint(answer.private.text); return false; }
  state.rooms = answer.rooms;
  open(answer.room);
  return true;
}

function open(room) {
  state.room = room;
  document.title = `${room} · Avatars`;
  $("room-name").textContent = room;
  history.replaceState(null, "", `/r/${encodeURIComponent(room)}`);
  $("rooms").replaceChildren(...[...state.rooms].sort().map((name) =>
    h("a", { href: `/r/${encodeURIComponent(name)}`, "aria-current": name === room && "page",
      onclick: (event) => { event.preventDefault(); if (name !== state.room) join(name); showSide(false); } }, name)));
  state.messages.clear();
  state.sources.clear();
  $("log").replaceChildren();
  connect();
}

function connect() {
  if (state.socket) { state.socket.onclose = null; state.socket.close(); }
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${inRoom("socket")}`);
  state.socket = socket;
  socket.onopen = () => { state.retry = 0; $("connection").textContent = ""; };
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = () => {
    $("connection").textContent = "Connecting…";
    state.retry = Math.min(state.retry + 1, 6);
    setTimeout(() => { if (state.socket === socket) connect(); }, 300 * 2 ** state.retry / 2);
  };
}

function receive(news) {
  if (news.type === "people") {
    $("people").replaceChildren(...news.people.slice(0, 6).map(face));
    $("people").setAttribute("aria-label", `Here now: ${news.people.join(", ")}`);
    $("people").setAttribute("role", "img");
    return;
  }
  const messages = news.type === "history" ? news.messages : [news.message];
  const stay = atEnd() || news.type === "history" && state.messages.size === 0;
  const log = $("log");
  log.querySelector(".empty")?.remove();
  // What is read aloud is what is new, not the whole history.
  if (news.type === "history") {
    log.setAttribute("aria-live", "off");
    // What was erased meanwhile is erased here too.
    const left = new Set(messages.map((message) => message.id));
    for (const [id, element] of state.messages) {
      if (!left.has(id) && (messages.length === 0 || id > messages[0].id)) { element.remove(); state.messages.delete(id); }
    }
  }
  let added = false;
  for (const message of messages) {
    const known = state.messages.get(message.id);
    const before = known ? known.previousElementSibling : log.lastElementChild;
    const element = render(message, before);
    if (known) known.replaceWith(element);
    else { log.append(element); added = true; }
    state.messages.set(message.id, element);
    if (!known && message.body.tone === "good") state.sources.clear();
  }
  if (!log.children.length) log.append(welcome());
  if (stay) toEnd(); else if (added) $("newest").hidden = false;
  if (news.type === "history") setTimeout(() => log.setAttribute("aria-live", "polite"), 300);
}

const atEnd = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 120;
function toEnd() { $("log").scrollTop = $("log").scrollHeight; $("newest").hidden = true; }

// Messages

function render(message, before) {
  const { author, body } = message;
  const at = new Date(message.at);
  const follows = before?.dataset.author === author && !before.classList.contains("private")
    && at - new Date(before.dataset.at) < 180000;
  const mine = author !== "" && author.toLowerCase() === state.name.toLowerCase();
  const content = author === "" ? boxOf(body, message.id) : bubbleOf(body);
  const head = h("div", { class: "who" }, h("b", {}, author || "Avatars"),
    h("time", { datetime: message.at }, at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })));
  const element = h("article", { class: `message${mine ? " mine" : ""}${follows ? " follows" : ""}` },
    follows ? h("span") : face(author), h("div", {}, !follows && head, content));
  element.dataset.author = author;
  element.dataset.at = message.at;
  if (body.job) element.dataset.job = body.job;
  return element;
}

function bubbleOf(body) {
  const command = /^\/\S+/.exec(body.text);
  const photos = body.photos ? h("div", { class: "attached" }, icon("photo"), `${body.photos} photos`) : null;
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
  const right = progress.place !== null ? (progress.place <= 1 ? "next in line" : `number ${progress.place} in line`)
    : waiting ? "" : `${percent} %`;
  const below = [progress.step !== null && `step ${progress.step} of ${progress.steps}`,
    progress.seconds_left !== null && `about ${duration(progress.seconds_left)} left`].filter(Boolean).join(" · ");
  return h("div", { class: "progress", "aria-live": "off" },
    h("div", { class: "top" }, h("b", {}, progress.label), h("span", {}, right)),
    h("div", { class: `bar${waiting ? " waiting" : ""}`, role: "progressbar", "aria-label": progress.label,
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": percent }, fill),
    below && h("div", { class: "below" }, below));
}

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.max(1, Math.round(whole / 60));
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function verdictsOf(body) {
  const urls = state.albums.get(body.job) || [];
  return h("ul", { class: "verdicts", "aria-label": "Photo check" }, body.verdicts.map((verdict) => {
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
    if (picture.gone) return h("div", { class: "picture gone" }, "erased");
    const show = () => lightbox.open(shown.map((one) => ({ ...one, url: urlOf(one) })), shown.indexOf(picture));
    return h("button", { type: "button", class: "picture", onclick: show, "aria-label": `Open: ${picture.text}` },
      h("img", { src: urlOf(picture), alt: picture.text, loading: "lazy" }),
      picture.seed !== null && h("span", { class: "seed" }, `seed ${picture.seed}`));
  }));
}

function fileOf(file) {
  const href = file.content === null ? inRoom(`files/${file.key}`) : URL.createObjectURL(new Blob([file.content]));
  return h("a", { class: "button", href, download: file.name, title: file.text }, icon("save"), file.name);
}

function welcome() {
  const step = (title, text, act) => h("button", { type: "button", onclick: act }, h("b", {}, title), text);
  return h("div", { class: "empty" }, face(""), h("h2", {}, "Whom shall I draw?"),
    h("p", {}, "A few photos are enough to learn somebody. Then describe any picture of them."),
    h("div", { class: "steps" },
      step("1 · Photos", "Drop 5 to 10 photos of one person here, or choose them.", () => $("files").click()),
      step("2 · Train", "/train mia7 woman. I check the photos and learn.", () => compose("/train ")),
      step("3 · Imagine", "/imagine mia7 woman in a red hoodie, smiling", () => compose("/imagine "))));
}

function showPrivate(body, ownText) {
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
  element.querySelector(".box").after(h("div", { class: "only-you" }, "Only you can see this",
    h("button", { type: "button", onclick: () => { added.forEach((one) => one.remove()); $("text").focus(); } }, "Dismiss")));
  if (body.prompt?.startsWith("/")) compose(body.prompt);
  toEnd();
}

async function press(button, action, id) {
  const row = button.parentElement;
  for (const one of row.children) one.disabled = true;
  try {
    const answer = await call(inRoom("press"), { action, message: id });
    if (answer.private) showPrivate(answer.private);
    if (answer.spent) { state.sources.clear(); if (id === null) row.remove(); }
  } catch { hint("The server did not answer. Please try again."); }
  for (const one of row.children) one.disabled = false;
}

// Photos

function addPhotos(files) {
  const most = state.table.photos.most;
  let problem = "";
  for (const file of files) {
    if (file.type && !file.type.startsWith("image/")) { problem = `${file.name} is not a picture.`; continue; }
    if (file.size === 0) { problem = `${file.name} is empty.`; continue; }
    if (file.size > state.table.photos.bytes) { problem = `${file.name} is larger than 20 MB. Please choose a smaller copy.`; continue; }
    if (state.photos.length === most) { problem = `${most} photos are enough.`; break; }
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

function showTray(problem = "") {
  const { fewest, most } = state.table.photos;
  const count = state.photos.length;
  $("tray").hidden = count === 0 && !problem;
  $("tray-count").textContent = count === 1 ? "1 photo" : `${count} photos`;
  const missing = fewest - count;
  $("tray-hint").textContent = problem || (missing > 0 ? `${missing} more, please: ${fewest} to ${most} of one person` : "Good number. Different days and angles work best.");
  $("thumbs").replaceChildren(...state.photos.map((photo, i) => {
    const thumb = h("li", { class: "thumb" },
      h("img", { src: photo.url, alt: `Photo ${i + 1}: ${photo.file.name}`, onerror: () => {
        thumb.classList.add("bad");
        thumb.querySelector("img").replaceWith(`no preview`);
      } }),
      h("button", { type: "button", "aria-label": `Remove photo ${i + 1}`, onclick: () => removePhoto(photo) }, icon("close")));
    return thumb;
  }));
  $("consent").closest("label").hidden = count === 0;
}

function clearTray(keep) {
  if (!keep) state.photos.forEach((photo) => URL.revokeObjectURL(photo.url));
  state.photos = [];
  $("consent").checked = false;
  showTray();
}

// Composing

function compose(text) {
  $("text").value = text;
  $("text").focus();
  $("text").setSelectionRange(text.length, text.length);
  grow();
  suggest();
}

function grow() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, 180)}px`;
}

function hint(...parts) { $("hint").replaceChildren(...parts); }

async function submit() {
  const text = $("text").value.trim();
  if (!text && !state.photos.length) return;
  const photos = state.photos, consent = $("consent").checked;
  const training = text.startsWith("/train");
  closeOptions();
  $("send").disabled = true;
  $("upload").hidden = photos.length === 0;
  try {
    const answer = await say(text, training || !text.startsWith("/") ? photos : [], consent, (share) => { $("upload").firstElementChild.style.width = `${share * 100}%`; });
    if (answer.private) showPrivate(answer.private, text);
    // A refusal leaves the line where it is, so that it can be put right.
    const refused = answer.private && answer.private.tone === "warning" && !answer.private.buttons.length;
    if (!refused) {
      if (answer.job && training) { state.albums.set(answer.job, photos.map((photo) => photo.url)); clearTray(true); }
      state.sent.unshift(text);
      state.recalled = -1;
      $("text").value = "";
      hint("");
      state.sources.clear();
    }
  } catch (error) {
    hint(error.message === "offline" ? "The server does not answer. Is it still running?" : "That did not work. Please try again.");
  }
  $("upload").hidden = true;
  $("send").disabled = false;
  grow();
  $("text").focus();
}

// Completion: what the word before the cursor can become

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
  const places = command.options.filter((one) => one.kind === "word" || one.kind === "text");
  const index = before.findIndex((one) => one.startsWith("--"));
  const place = index === -1 ? before.length : index;
  const option = places.find((one, i) => i === place || one.kind === "text" && i <= place);
  return { kind: "value", word, command, option };
}

async function wordsOf(option) {
  if (!option || !option.source) return [];
  if (option.source === "choices") return option.choices.map((value) => ({ value, hint: "" }));
  const known = state.sources.get(option.source);
  if (known && Date.now() - known.at < 5000) return known.words;
  const words = await call(inRoom(`complete?source=${option.source}`)).catch(() => []);
  state.sources.set(option.source, { at: Date.now(), words });
  return words;
}

async function suggest() {
  const now = context();
  explain(now);
  if (!now) return closeOptions();
  let found;
  if (now.kind === "command") found = state.table.commands.map((one) => ({ value: `/${one.name}`, hint: one.description }));
  else if (now.kind === "name") {
    const used = $("text").value;
    found = now.command.options.filter((one) => !["photos", "flag"].includes(one.kind) && (!one.required) && !used.includes(`--${one.name} `))
      .map((one) => ({ value: `--${one.name}`, hint: one.description }));
  } else found = await wordsOf(now.option);
  if (context()?.word !== now.word) return;
  const typed = now.word.toLowerCase();
  found = found.filter((one) => one.value.toLowerCase().startsWith(typed));
  if (found.length === 1 && found[0].value === typed) found = [];
  if (now.option?.kind === "text" && typed === "" && /\S\s+$/.test($("text").value.replace(/^\/\S+\s*/, ""))) found = [];
  showOptions(found);
}

function explain(now) {
  if (!now || !now.command) return hint(now ? "Choose a command. Tab completes." : "");
  const parts = [h("b", {}, `/${now.command.name}`)];
  // What follows a text has no place of its own: the text takes all that is left.
  const text = now.command.options.findIndex((one) => one.kind === "text");
  const placed = (option, i) => option.kind === "word" && (text === -1 || i < text);
  for (const [i, option] of now.command.options.entries()) {
    if (!option.required && !placed(option, i)) continue;
    if (option.name === "consent") continue;
    const current = option === now.option;
    const label = option.kind === "photos" ? `${state.photos.length ? state.photos.length : "5 to 10"} photos` : current ? `${option.name}: ${option.description}` : option.name;
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
  $("text").setAttribute("aria-expanded", String(found.length > 0));
  mark();
}

function mark() {
  [...$("options").children].forEach((item, i) => item.setAttribute("aria-selected", String(i === state.chosen)));
  const item = $("options").children[state.chosen];
  if (item) { $("text").setAttribute("aria-activedescendant", item.id); item.scrollIntoView({ block: "nearest" }); }
  else $("text").removeAttribute("aria-activedescendant");
}

const closeOptions = () => showOptions([]);

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

function onKey(event) {
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

// Pictures, large

const lightbox = {
  pictures: [], index: 0,
  open(pictures, index) {
    this.pictures = pictures;
    this.show(index);
    $("lightbox").showModal();
  },
  show(index) {
    this.index = (index + this.pictures.length) % this.pictures.length;
    const picture = this.pictures[this.index];
    const image = $("lightbox").querySelector("img");
    image.src = picture.url;
    image.alt = picture.text;
    const link = h("a", { href: picture.url, download: `${picture.text.slice(0, 40).replace(/\W+/g, "-") || "avatar"}.png` }, icon("save"), "Save");
    $("lightbox").querySelector("figcaption").replaceChildren(h("span", {}, picture.text),
      ...(picture.seed === null ? [] : [h("span", {}, `seed ${picture.seed}`)]), link);
    for (const button of $("lightbox").querySelectorAll(".previous, .next")) button.hidden = this.pictures.length < 2;
  },
  step(by) { if (this.pictures.length > 1) this.show(this.index + by); },
};

// Light and dark, and the list of rooms on a phone

function setTheme(chosen) {
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").querySelector("use").setAttribute("href", dark ? "#i-sun" : "#i-moon");
}

function showSide(shown) {
  $("side").classList.toggle("open", shown);
  $("shade").hidden = !shown;
  if (shown) $("side-close").focus();
}

// Wiring

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const problem = event.currentTarget.querySelector(".problem");
  problem.hidden = true;
  try {
    const me = await call("/api/login", { name: $("name").value });
    if (me.private) { problem.textContent = me.private.text; problem.hidden = false; return; }
    await enter(me, $("first-room").value);
    if (!state.room) { problem.textContent = $("hint").textContent; problem.hidden = false; $("app").hidden = true; $("welcome").hidden = false; }
  } catch { problem.textContent = "The server does not answer."; problem.hidden = false; }
});
$("logout").addEventListener("click", async () => { await call("/api/logout", {}); location.href = "/"; });
$("new-room").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = event.currentTarget.elements.name;
  if (input.value.trim() && await join(input.value)) { input.value = ""; showSide(false); $("text").focus(); }
});
$("copy").addEventListener("click", async () => {
  try { await navigator.clipboard.writeText(location.href); hint("Link copied. Whoever opens it joins this room."); }
  catch { hint(location.href); }
});
$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", next);
  setTheme(next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(localStorage.getItem("theme")));
$("side-open").addEventListener("click", () => showSide(true));
$("side-close").addEventListener("click", () => { showSide(false); $("side-open").focus(); });
$("shade").addEventListener("click", () => showSide(false));
$("side").addEventListener("keydown", (event) => { if (event.key === "Escape") { showSide(false); $("text").focus(); } });

$("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("text").addEventListener("input", () => { grow(); suggest(); });
$("text").addEventListener("click", suggest);
$("text").addEventListener("blur", closeOptions);
$("text").addEventListener("keydown", onKey);
$("text").addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) { event.preventDefault(); addPhotos(event.clipboardData.files); }
});
$("pick").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => { addPhotos($("files").files); $("files").value = ""; });
$("newest").addEventListener("click", toEnd);
$("log").addEventListener("scroll", () => { if (atEnd()) $("newest").hidden = true; });

let dragging = 0;
const withFiles = (event) => event.dataTransfer?.types.includes("Files") && !$("app").hidden;
addEventListener("dragenter", (event) => { if (withFiles(event)) { dragging += 1; $("drop").hidden = false; } });
addEventListener("dragleave", (event) => { if (withFiles(event) && --dragging <= 0) { dragging = 0; $("drop").hidden = true; } });
addEventListener("dragover", (event) => { if (withFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!withFiles(event)) return;
  event.preventDefault();
  dragging = 0;
  $("drop").hidden = true;
  addPhotos(event.dataTransfer.files);
});

$("lightbox").addEventListener("click", (event) => {
  const what = event.target.closest("[data-do]")?.dataset.do;
  if (what === "previous") lightbox.step(-1);
  else if (what === "next") lightbox.step(1);
  else if (what === "close" || !event.target.closest("figure")) $("lightbox").close();
});
$("lightbox").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") lightbox.step(-1);
  if (event.key === "ArrowRight") lightbox.step(1);
});

start();
