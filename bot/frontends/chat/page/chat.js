// The page of the local chat: renders messages and sends input. No library, no build step.

import { $, call, face, h, inRoom, say, state } from "./base.js";
import { addPhotos, closeOptions, compose, grow, hint, onKey, suggest } from "./composer.js";
import { lightbox, openGallery } from "./gallery.js";
import { atEnd, render, toEnd, welcome } from "./messages.js";
import { submit } from "./sending.js";

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
  state.operator = me.operator;
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
    $("connection").textContent = say("Connecting…");
    state.retry = Math.min(state.retry + 1, 6);
    setTimeout(() => { if (state.socket === socket) connect(); }, 300 * 2 ** state.retry / 2);
  };
}

function receive(news) {
  if (news.type === "people") {
    $("people").replaceChildren(...news.people.slice(0, 6).map(face));
    $("people").setAttribute("aria-label", say("Here now: {people}", { people: news.people.join(", ") }));
    $("people").setAttribute("role", "img");
    return;
  }
  const messages = news.type === "history" ? news.messages : [news.message];
  const stay = atEnd() || news.type === "history" && state.messages.size === 0;
  const log = $("log");
  log.querySelector(".empty")?.remove();
  // Screen readers read new messages aloud, not the history.
  if (news.type === "history") {
    log.setAttribute("aria-live", "off");
    // Remove messages that were erased in the meantime.
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
  } catch { problem.textContent = say("The server does not answer. Is it still running?"); problem.hidden = false; }
});
$("logout").addEventListener("click", async () => { await call("/api/logout", {}); location.href = "/"; });
$("new-room").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = event.currentTarget.elements.name;
  if (input.value.trim() && await join(input.value)) { input.value = ""; showSide(false); $("text").focus(); }
});
$("copy").addEventListener("click", async () => {
  try { await navigator.clipboard.writeText(location.href); hint(say("Link copied. Anybody who opens it joins this room.")); }
  catch { hint(location.href); }
});
$("my-pictures").addEventListener("click", () => { showSide(false); openGallery(); });
$("gallery-close").addEventListener("click", () => $("gallery").close());
for (const select of document.querySelectorAll(".language")) {
  select.addEventListener("change", async () => {
    await call("/api/language", { language: select.value });
    location.reload();
  });
}
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
$("text").addEventListener("keydown", (event) => onKey(event, submit));
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
