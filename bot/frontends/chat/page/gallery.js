// Pictures: large, and all that the person had drawn.

import { $, call, h, icon, say } from "./base.js";
import { compose } from "./composer.js";

export const lightbox = {
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
    const name = picture.text.slice(0, 40).replace(/\W+/g, "-") || "avatar";
    $("lightbox").querySelector("figcaption").replaceChildren(
      h("span", {}, picture.text),
      ...(picture.seed === null ? [] : [
        h("span", {}, say("seed {seed}", { seed: picture.seed })),
        h("button", { type: "button", onclick: () => reuse(picture.text, picture.seed) }, icon("again"), say("Use prompt and seed")),
      ]),
      h("a", { href: picture.url, download: `${name}.png` }, icon("save"), say("Save")));
    for (const button of $("lightbox").querySelectorAll(".previous, .next")) button.hidden = this.pictures.length < 2;
  },
  step(by) { if (this.pictures.length > 1) this.show(this.index + by); },
};

function reuse(prompt, seed) {
  $("lightbox").close();
  $("gallery").close();
  compose(`/imagine ${prompt}${seed === undefined ? "" : ` --seed ${seed}`}`);
}

/** Everything that the person had drawn, newest first, wherever they asked for it. */
export async function openGallery() {
  $("gallery-list").replaceChildren();
  $("gallery").showModal();
  await more();
}

async function more() {
  const list = $("gallery-list");
  list.querySelector(".older")?.remove();
  let found;
  try { found = await call(`/api/gallery?skip=${list.children.length}`); }
  catch { list.append(h("p", { class: "nothing", role: "alert" }, say("The server does not answer. Is it still running?"))); return; }
  list.append(...found.drawings.map(drawing));
  if (!list.children.length) list.append(h("p", { class: "nothing" }, say("Nothing drawn yet. Start with /imagine.")));
  if (found.more) list.append(h("button", { type: "button", class: "button older", onclick: more }, say("Show older ones")));
}

function drawing({ prompt, at, pictures }) {
  const day = new Date(at).toLocaleDateString(document.documentElement.lang, { day: "numeric", month: "long", year: "numeric" });
  const shown = pictures.map((picture) => ({ ...picture, text: prompt }));
  return h("section", {},
    h("h3", {}, prompt),
    h("div", { class: "about" }, h("time", { datetime: at }, day),
      h("button", { type: "button", onclick: () => reuse(prompt) }, say("Use this prompt"))),
    h("div", { class: "pictures" }, shown.map((picture, i) =>
      h("button", { type: "button", class: "picture", onclick: () => lightbox.open(shown, i),
        "aria-label": say("Open: {picture}", { picture: `${prompt}, ${say("seed {seed}", { seed: picture.seed })}` }) },
        h("img", { src: picture.url, alt: "", loading: "lazy" }),
        h("span", { class: "seed" }, say("seed {seed}", { seed: picture.seed }))))));
}
