// What the person wants now is asked of the service; what goes wrong, and what takes time, is told.

import { Problem, ask, formOf, replaced } from "./api.js";
import { at, tell } from "./elements.js";

export function showProblem(error, retry) {
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

export const watch = {
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
export async function attend(task) {
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

export const post = (path, picture, signal) => ask(path, { form: formOf(picture.file, picture.name), signal, watch });
export const bitmap = async (response) => createImageBitmap(await response.blob());
