// The controls of an explanation: which there are, and how they stand.

import { at, tell } from "./elements.js";
import { canvas } from "./painting.js";
import { PATCHES, PLAIN, explainedClass, layer, method, state } from "./state.js";

const HOW = "Point at a patch to see where it looks; click or tap to keep it.";

export function showControls() {
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
