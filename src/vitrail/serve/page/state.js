// What the page knows: what /model said, the images with all that is known of them, and what is looked at.

export const PATCHES = "patches";
export const PLAIN = "picture";

export const state = {
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

export const method = () => state.model.methods.find((each) => each.name === state.view);
export const layer = () => state.model.layers[state.layer - 1];
export const explainedClass = () => state.className ?? state.chosen?.answer?.predictions[0]?.label;
