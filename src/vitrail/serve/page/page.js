// The page: images in, labels out, and explanations over the picture. One state, and functions that show it.

import { Problem, ask, formOf, replaced, withQuery } from "./api.js";
import { Attention, drawPanes } from "./attention.js";
import { megabytes, showCard } from "./card.js";
import { at, make, tell } from "./elements.js";
import { drawThumbnail, thumbnail, whenNear } from "./thumbnails.js";

const PATCHES = "patches";
const PLAIN = "picture";
const HOW = "Point at a patch to see where it looks; click or tap to keep it.";
const KEPT = 4; // images whose attention stays in memory

const canvas = at("picture");

// What /model said, the images with all that is known of them, and what is looked at.
const state = {
  model: null,
  pictures: [], // { file, name, seen, answer, problem, attention: by layer, heat: by request }
  chosen: null,
  view: PLAIN,
  layer: 1,
  head: 0, // 0 is the mean of all
  className: null, // null is the most probable one
  shown: null, // the overlay: { attention } or { heat }
  hovered: null, // a patch, and the one that a click or a key has chosen
  patch: null,
};

const strength = () => at("opacity").value / 100;
const method = () => state.model.methods.find((each) => each.name === state.view);
const layer = () => state.model.layers[state.layer - 1];

// ---------------------------------------------------------------- telling the person

function showProblem(error, retry) {
  const known = error instanceof Problem;
  if (!known) console.error(error);
  tell("note", "");
  tell("problem", known ? error.message : "The page made a mistake; reload it.");
  at("again").hidden = !(known && error.again);
  at("again").onclick = retry;
}

function clearProblem() {
  tell("problem", "");
  tell("note", "");
  at("again").hidden = true;
}

const watch = {
  waiting: (seconds) => tell("note", `The service is busy; trying again in ${seconds} s.`),
  token: (refused) =>
    new Promise((resolve) => {
      const form = at("token-form");
      form.hidden = false;
      tell("token-problem", refused ? "That is not the token." : "");
      at("token").value = "";
      at("token").focus();
      form.onsubmit = (event) => {
        event.preventDefault();
        form.hidden = true;
        resolve(at("token").value);
      };
    }),
};

let current = new AbortController();

/** Do what the person wants now; what they wanted before is given up. */
async function attend(task) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  clearProblem();
  try {
    await task(signal);
    if (!signal.aborted) tell("note", "");
  } catch (error) {
    if (!signal.aborted && !replaced(error)) showProblem(error, () => attend(task));
  }
}

// ---------------------------------------------------------------- the model

async function start(signal) {
  state.model = await (await ask("model", { signal, watch })).json();
  const { model } = state;
  document.title = `${model.name} · Vitrail`;
  tell("model-line", `${model.name}: ${model.model} on ${model.device}, ${model.classes.length} classes`);
  state.layer = Math.max(1, model.layers.length);
  showViews();
  showClasses();
  showCard(model);
  showExamples();
  add(early.splice(0));
}

function showViews() {
  const { layers, methods } = state.model;
  const explained = layers.length + methods.length > 0;
  at("no-methods").hidden = explained;
  at("views").hidden = !explained;
  const names = [...(layers.length ? [PATCHES] : []), ...methods.map((each) => each.name), PLAIN];
  at("views").append(...names.map(viewChoice));
  chooseView(names[0]);
}

function viewChoice(name) {
  const input = make("input", { type: "radio", name: "view", value: name, className: "unseen" });
  input.onchange = () => chooseView(name);
  const label = make("label", {}, input, make("span", { textContent: name }));
  return label;
}

function showClasses() {
  at("classes").append(...state.model.classes.map((name) => make("option", { value: name })));
}

// ---------------------------------------------------------------- images

function showExamples() {
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

const early = []; // files that came before the model was known

function add(files) {
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

const post = (path, picture, signal) => ask(path, { form: formOf(picture.file, picture.name), signal, watch });
const bitmap = async (response) => createImageBitmap(await response.blob());

// ---------------------------------------------------------------- showing an image

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

// ---------------------------------------------------------------- explanations

function chooseView(name) {
  state.view = name;
  for (const input of at("views").querySelectorAll("input")) input.checked = input.value === name;
  showControls();
  if (state.chosen?.seen) attend(look);
}

function chooseClass(name) {
  state.className = name;
  at("class").value = name ?? "";
  showControls();
  if (state.chosen) attend(look);
}

function showControls() {
  const { model, view } = state;
  const patches = view === PATCHES;
  const layered = model.layers.length > 1 && (patches || method()?.layers);
  const headed = model.layers.length > 0 && (patches || method()?.heads);
  state.head = headed ? Math.min(state.head, layer().heads) : state.head;
  tell("what", patches ? HOW : (method()?.what ?? "What the model sees."));
  at("layer-control").hidden = !layered;
  at("head-control").hidden = !headed || layer().heads < 2;
  at("opacity-control").hidden = view === PLAIN;
  at("class-control").hidden = !method()?.of_class;
  at("readout").hidden = !patches;
  at("layer").max = model.layers.length;
  at("layer").value = state.layer;
  at("head").max = layer()?.heads ?? 0;
  at("head").value = state.head;
  tell("layer-value", `${state.layer} of ${model.layers.length}`);
  tell("head-value", state.head ? `${state.head} of ${layer().heads}` : "mean of all");
  tell("opacity-value", `${at("opacity").value} %`);
  canvas.tabIndex = patches ? 0 : -1;
  canvas.setAttribute("role", patches ? "application" : "img");
  canvas.setAttribute("aria-label", pictureName());
  for (const button of at("predictions").querySelectorAll("button")) {
    button.disabled = !method()?.of_class;
    button.setAttribute("aria-pressed", method()?.of_class === true && button.value === explainedClass());
  }
}

function pictureName() {
  const name = `${state.chosen?.name ?? "The picture"} as the model sees it`;
  if (state.view !== PATCHES) return name;
  return `${name}. Arrow keys move from patch to patch, Escape goes back to the whole image.`;
}

const explainedClass = () => state.className ?? state.chosen?.answer?.predictions[0]?.label;

/** Fetch the overlay that is wanted, unless it is there, and show it. */
async function look(signal) {
  const { chosen, view } = state;
  if (view === PATCHES) {
    const key = state.layer;
    if (!chosen.attention.has(key)) chosen.attention.set(key, await attention(chosen, key, signal));
    adopt({ attention: chosen.attention.get(key) });
  } else if (view === PLAIN) {
    adopt(null);
  } else {
    const path = explanation();
    if (!chosen.heat.has(path)) {
      tell("note", `Computing ${view} …`);
      await settled(signal);
      chosen.heat.set(path, await bitmap(await post(path, chosen, signal)));
    }
    adopt({ heat: chosen.heat.get(path) });
  }
}

async function attention(picture, number, signal) {
  tell("note", "Computing attention …");
  return new Attention(await (await post(withQuery("attention", { layer: number }), picture, signal)).json());
}

function explanation() {
  const { of_class: ofClass, layers, heads } = method();
  return withQuery("explain", {
    method: state.view,
    format: "heat",
    class: ofClass ? classQuery() : null,
    layer: layers ? state.layer : null,
    head: heads && state.head ? state.head : null,
  });
}

// Where two classes have the same name, the first is meant, and told by its number.
function classQuery() {
  const { classes } = state.model;
  const first = classes.indexOf(state.className);
  return first === classes.lastIndexOf(state.className) ? state.className : first;
}

// A slider that is being dragged asks once it rests.
const settled = (signal) =>
  new Promise((resolve, reject) => {
    setTimeout(() => (signal.aborted ? reject(signal.reason) : resolve()), 100);
  });

function adopt(overlay) {
  const [from, to] = [state.shown?.attention, overlay?.attention];
  if (state.patch !== null && from && to) state.patch = sameSpot(state.patch, from, to);
  state.shown = overlay;
  paint();
}

function sameSpot(place, from, to) {
  const row = Math.floor(place / from.columns);
  return to.placeAt(((place % from.columns) + 0.5) / from.columns, (row + 0.5) / from.rows);
}

function paint() {
  const { seen } = state.chosen ?? {};
  if (!seen || canvas.hidden) return;
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  canvas.width = width; // which also clears it
  canvas.height = Math.round((width * seen.height) / seen.width);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = seen.width > 64; // the pixels of a digit are to be seen
  context.drawImage(seen, 0, 0, canvas.width, canvas.height);
  if (state.shown?.heat) paintHeat(context, state.shown.heat);
  if (state.shown?.attention) paintPatches(context, state.shown.attention);
}

function paintHeat(context, heat) {
  context.imageSmoothingEnabled = true;
  context.globalAlpha = strength();
  context.drawImage(heat, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
}

function paintPatches(context, grid) {
  const query = state.hovered ?? state.patch;
  const { light, strongest, most } = grid.look(query, state.head);
  drawPanes(context, grid, light, query, strength(), "#c8102e");
  const who = query === null ? "The whole image" : `Row ${grid.name(query).slice(4)}`;
  tell("readout", `${who} looks most at ${grid.name(strongest)}: ${(100 * most).toFixed(1)} % of its attention.`);
  at("whole").hidden = state.patch === null;
}

// ---------------------------------------------------------------- what a person does

function patchUnder(event) {
  const box = canvas.getBoundingClientRect();
  return state.shown.attention.placeAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}

function hover(place) {
  if (place === state.hovered) return;
  state.hovered = place;
  paint();
}

function keep(place) {
  state.patch = place;
  state.hovered = null;
  paint();
}

canvas.onpointermove = (event) => state.shown?.attention && event.pointerType === "mouse" && hover(patchUnder(event));
canvas.onpointerleave = () => hover(null);
canvas.onclick = (event) => state.shown?.attention && keep(patchUnder(event));
canvas.onkeydown = (event) => {
  const grid = state.shown?.attention;
  if (!grid || event.ctrlKey || event.metaKey || event.altKey) return;
  const middle = Math.floor(grid.rows / 2) * grid.columns + Math.floor(grid.columns / 2);
  const place = event.key === "Escape" ? null : grid.step(state.patch ?? middle, event.key);
  if (place === null && event.key !== "Escape") return;
  event.preventDefault();
  keep(place);
};
at("whole").onclick = () => keep(null);

function slide(name) {
  state[name] = Number(at(name).value);
  showControls();
  if (state.chosen) attend(look);
}
at("layer").oninput = () => slide("layer");
at("head").oninput = () => slide("head");
at("opacity").oninput = () => {
  showControls();
  paint();
};

at("class").onchange = () => {
  const typed = at("class").value.trim().toLowerCase();
  const { classes } = state.model;
  const found =
    classes.find((name) => name.toLowerCase() === typed) ??
    classes.find((name) => name.toLowerCase().startsWith(typed));
  if (typed === "") chooseClass(null);
  else if (found) chooseClass(found);
  else showProblem(new Problem(`The model has no class “${at("class").value}”.`));
};

for (const id of ["file", "camera"]) {
  at(id).onchange = () => {
    add([...at(id).files]);
    at(id).value = ""; // so that the same file can be taken again
  };
}
addEventListener("paste", (event) => add(event.clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) add(event.dataTransfer.files);
  else showProblem(new Problem("What was dropped is no file; save the image first, then drop it here."));
});
new ResizeObserver(paint).observe(at("stage"));

// A function whose answer is kept, unless it failed.
function once(task) {
  let answer = null;
  return () => (answer ??= task().catch((error) => {
    answer = null;
    throw error;
  }));
}

attend(start);
