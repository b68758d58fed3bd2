// The model card: what is known of the model, as a list of facts.

import { at, make, tell } from "./elements.js";

/** Fill the card with what /model said. */
export function showCard(model) {
  const [height, width] = model.image_size;
  const facts = {
    model: model.model,
    parameters: model.parameters?.toLocaleString("en-GB"), // not known of an exported model
    "sees images of": `${width} × ${height} pixels, ${model.channels === 1 ? "grey" : "in colour"}`,
    "an image has": model.many_labels ? "any number of its classes" : "one of its classes",
    ...Object.fromEntries(flat(model.card)),
    precision: model.precision,
    device: model.device,
    "takes files of up to": `${megabytes(model.limits.bytes)} and ${Math.floor(model.limits.pixels / 1e6)} megapixels`,
  };
  const rows = Object.entries(facts)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })));
  at("card-facts").append(...rows);
  tell("card-classes", `Its ${model.classes.length} classes: ${some(model.classes, 100)}.`);
  at("card").hidden = false;
  at("card").open = matchMedia("(min-width: 52.01rem)").matches; // there it fills the place of the answers
}

// What is known of a run, as lines: nested names joined, shares as they are told.
function flat(card, before = "") {
  return Object.entries(card).flatMap(([key, value]) => {
    const name = before + key.replaceAll("_", " ");
    if (value === null) return [];
    return typeof value === "object" && !Array.isArray(value) ? flat(value, `${name}, `) : [[name, told(value)]];
  });
}

function told(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return value > 0 && value < 1 ? `${(100 * value).toFixed(1)} %` : value.toPrecision(4);
}

function some(names, most) {
  return names.slice(0, most).join(", ") + (names.length > most ? " …" : "");
}

/** A number of bytes for people. */
export const megabytes = (bytes) => `${Math.round(bytes / 1e5) / 10} MB`;
