// The picture as the model sees it, with what is shown over it.

import { drawPanes } from "./attention.js";
import { at, tell } from "./elements.js";
import { state } from "./state.js";

export const canvas = at("picture");

const strength = () => at("opacity").value / 100;

export function paint() {
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
