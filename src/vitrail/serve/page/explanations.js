// Explanations: which is looked at, and how it is fetched.

import { withQuery } from "./api.js";
import { attend, bitmap, post } from "./attend.js";
import { Attention } from "./attention.js";
import { showControls } from "./controls.js";
import { at, make, tell } from "./elements.js";
import { paint } from "./painting.js";
import { PATCHES, PLAIN, method, state } from "./state.js";

export function showViews() {
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

function chooseView(name) {
  state.view = name;
  for (const input of at("views").querySelectorAll("input")) input.checked = input.value === name;
  showControls();
  if (state.chosen?.seen) attend(look);
}

export function chooseClass(name) {
  state.className = name;
  at("class").value = name ?? "";
  showControls();
  if (state.chosen) attend(look);
}

/** Fetch the overlay that is wanted, unless it is there, and show it. */
export async function look(signal) {
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
