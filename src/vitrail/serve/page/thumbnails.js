// Small pictures to choose from.

import { make } from "./elements.js";

const SIDE = 128; // pixels

/** A list item and the button in it, with room for a small picture and a label. */
export function thumbnail(name, label) {
  const picture = make("canvas", { width: SIDE, height: SIDE });
  const text = make("span", { className: "label", textContent: label });
  const button = make("button", { type: "button", title: name }, picture, text);
  return [make("li", {}, button), button];
}

/** Draw the middle of an image file; a browser does not read all that the service reads, and then nothing is drawn. */
export async function drawThumbnail(button, file) {
  const image = await createImageBitmap(file).catch(() => null);
  if (!image) return;
  const side = Math.min(image.width, image.height);
  const context = button.querySelector("canvas").getContext("2d");
  context.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
  image.close();
}

const tasks = new WeakMap();
const near = new IntersectionObserver((entries) => {
  for (const { target } of entries.filter((each) => each.isIntersecting)) {
    near.unobserve(target);
    tasks.get(target)();
  }
});

/** Do something once an element has come into sight. */
export function whenNear(element, task) {
  tasks.set(element, task);
  near.observe(element);
}
