// Sending: the line and its photos go to the server, and the answer is shown.

import { $, requestKey, say, send, state } from "./base.js";
import { closeOptions, grow, hint, removeSent } from "./composer.js";
import { showPrivate } from "./messages.js";

let unanswered = null;     // what was sent last and got no answer yet: {sent, key}

export async function submit() {
  const text = $("text").value.trim();
  if (!text && !state.photos.length) return;
  const photos = state.photos, consent = $("consent").checked;
  const training = text.startsWith("/train");
  // A line that got no answer keeps its key when it is sent again, since the server may have received it.
  const sent = JSON.stringify([state.room, text, consent, ...photos.map((photo) => photo.url)]);
  if (unanswered?.sent !== sent) unanswered = { sent, key: requestKey() };
  const { key } = unanswered;
  closeOptions();
  $("send").disabled = true;
  $("upload").hidden = photos.length === 0;
  try {
    const answer = await send(text, training || !text.startsWith("/") ? photos : [], consent, key, (share) => { $("upload").firstElementChild.style.width = `${share * 100}%`; });
    if (unanswered?.key === key) unanswered = null;
    if (answer.private) showPrivate(answer.private, text);
    // A refusal leaves the line where it is, so that it can be put right.
    const refused = answer.private && answer.private.tone === "warning" && !answer.private.buttons.length;
    if (!refused) {
      if (answer.job && training) { state.albums.set(answer.job, photos.map((photo) => photo.url)); removeSent(photos); }
      state.sent.unshift(text);
      state.sources.clear();
      // What was typed while the answer was on its way stays.
      if ($("text").value.trim() === text) { $("text").value = ""; hint(""); }
    }
  } catch (error) {
    hint(error.message === "offline" ? say("The server does not answer. Is it still running?") : say("That did not work. Please try again."));
  }
  $("upload").hidden = true;
  $("send").disabled = false;
  grow();
  $("text").focus();
}
