// The page: images in, labels out, and explanations over the picture. Here it starts, and hears what a person does.

import { Problem, ask } from "./api.js";
import { attend, showProblem, watch } from "./attend.js";
import { showCard } from "./card.js";
import { showControls } from "./controls.js";
import { at, make, tell } from "./elements.js";
import { chooseClass, look, showViews } from "./explanations.js";
import { add, addEarly, showExamples } from "./images.js";
import { canvas, paint } from "./painting.js";
import { state } from "./state.js";

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
  addEarly();
}

function showClasses() {
  at("classes").append(...state.model.classes.map((name) => make("option", { value: name })));
}

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

attend(start);
