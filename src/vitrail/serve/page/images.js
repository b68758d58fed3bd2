// The person's images: taken in, answered one after the other, and one of them shown.

import { Problem, ask } from "./api.js";
import { attend, bitmap, post, watch } from "./attend.js";
import { megabytes } from "./card.js";
import { showControls } from "./controls.js";
import { at, make, tell } from "./elements.js";
import { chooseClass, look } from "./explanations.js";
import { canvas, paint } from "./painting.js";
import { state } from "./state.js";
import { drawThumbnail, thumbnail, whenNear } from "./thumbnails.js";

const KEPT = 4; // images whose attention stays in memory

const early = []; // files that came before the model was known

export function add(files) {
  if (!state.model) early.push(...files);
  if (!state.model || files.length === 0) return;
  const pictures = [...files].map((file) => ({
    file,
    name: file.name || "pasted image",
    seen: null,
    answer: null,
    problem: null,
    attention: new Map(),
    heat: new Map(),
  }));
  if (state.pictures.length === 0) at("card").open = false;
  state.pictures.push(...pictures);
  choose(pictures[0]);
}

/** Those that came before the model was known. */
export function addEarly() {
  add(early.splice(0));
}

let recent = [];

function choose(picture) {
  state.chosen = picture;
  state.shown = null;
  state.patch = state.hovered = null;
  state.className = null;
  at("class").value = "";
  for (const old of recent.filter((each) => each !== picture).slice(KEPT - 1)) old.attention.clear();
  recent = [picture, ...recent.filter((each) => each !== picture)].slice(0, KEPT);
  showPicture();
  attend(async (signal) => {
    await Promise.all([see(picture, signal), predict(picture, signal)]);
    await look(signal);
  }).then(predictWaiting);
}

function checkSize({ file, name }) {
  const most = state.model.limits.bytes;
  if (file.size <= most) return;
  throw new Problem(`${name} has ${megabytes(file.size)}; the service takes up to ${megabytes(most)}.`);
}

async function see(picture, signal) {
  checkSize(picture);
  if (!picture.seen) {
    tell("note", `Reading ${picture.name} …`);
    picture.seen = await bitmap(await post("view", picture, signal));
  }
  showPicture();
}

async function predict(picture, signal) {
  try {
    checkSize(picture);
    picture.answer ??= await prediction(picture, signal);
    picture.problem = null;
  } catch (error) {
    if (error instanceof Problem && !error.again) picture.problem = error.message;
    throw error;
  } finally {
    showPicture();
  }
}

async function prediction(picture, signal) {
  const answer = await (await post("predict", picture, signal)).json();
  const [{ predictions, error }] = answer.predictions;
  if (error) throw new Problem(`Cannot read image ${picture.name}: ${error}.`);
  return { predictions, milliseconds: answer.milliseconds };
}

let predicting = false;

/** The labels of the images that are not looked at yet, one after the other. */
async function predictWaiting() {
  if (predicting) return;
  predicting = true;
  const waits = (each) => !each.answer && !each.problem && each !== state.chosen;
  for (let picture = state.pictures.find(waits); picture; picture = state.pictures.find(waits)) {
    try {
      await predict(picture);
    } catch {
      if (!picture.problem) break; // all others would fail, too; choosing one of them tries again
    }
  }
  predicting = false;
}

function showPicture() {
  const { chosen } = state;
  at("welcome").hidden = Boolean(chosen?.seen);
  canvas.hidden = !chosen?.seen;
  at("labels").hidden = !chosen?.answer;
  at("explanations").hidden = !(chosen?.seen && chosen.answer);
  if (chosen?.answer) showPredictions(chosen.answer);
  showStrip();
  showControls();
  paint();
}

let listed = null; // the answer that is in the list: it is built once, so that it is read out once

function showPredictions(answer) {
  if (listed === answer) return;
  listed = answer;
  at("predictions").replaceChildren(...answer.predictions.map(labelRow));
  tell("latency", `${answer.milliseconds.toFixed(1)} ms in the service`);
}

function labelRow({ label, score }) {
  const bar = make("span", { className: "bar" });
  bar.style.width = `${100 * score}%`;
  const button = make(
    "button",
    { type: "button", value: label },
    make("span", { className: "label", textContent: label }),
    make("span", { className: "score", textContent: `${(100 * score).toFixed(1)} %` }),
    make("span", { className: "track" }, bar),
  );
  button.onclick = () => chooseClass(label);
  return make("li", {}, button);
}

function showStrip() {
  at("strip").hidden = state.pictures.length < 2;
  for (const picture of state.pictures) {
    if (!picture.thumbnail) {
      const [item, button] = thumbnail(picture.name, "…");
      button.onclick = () => choose(picture);
      picture.thumbnail = button;
      drawThumbnail(button, picture.file);
      at("strip").append(item);
    }
    const label = picture.problem ? "unreadable" : (picture.answer?.predictions[0]?.label ?? "…");
    picture.thumbnail.querySelector(".label").textContent = label;
    picture.thumbnail.setAttribute("aria-label", `${picture.name}: ${label}`);
    picture.thumbnail.setAttribute("aria-current", picture === state.chosen);
  }
}

export function showExamples() {
  const { examples } = state.model;
  at("gallery").hidden = examples.length === 0;
  for (const name of examples) {
    const [item, button] = thumbnail(name, "");
    const file = once(() => example(name));
    button.setAttribute("aria-label", `Example ${name}`);
    button.onclick = () => attend(async () => add([await file()]));
    at("examples").append(item);
    whenNear(button, () => file().then((got) => drawThumbnail(button, got), () => {})); // a click tells what is wrong
  }
}

async function example(name) {
  const response = await ask(`examples/${encodeURIComponent(name)}`, { watch });
  const blob = await response.blob();
  return new File([blob], name, { type: blob.type });
}

// A function whose answer is kept, unless it failed.
function once(task) {
  let answer = null;
  return () => (answer ??= task().catch((error) => {
    answer = null;
    throw error;
  }));
}
