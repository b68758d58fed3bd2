// Asking the service. Addresses are relative, so that the page also works under a prefix of a proxy.

const TOKEN = "vitrail-token"; // its name in sessionStorage
const PATIENCE = 8; // how often a busy service is asked

/** A sentence for the person; `again` says whether trying once more may help. */
export class Problem extends Error {
  constructor(sentence, again = false) {
    super(sentence);
    this.again = again;
  }
}

/** Whether this is only a request that a newer one replaced. */
export const replaced = (error) => error.name === "AbortError";

/**
 * One answer of the service, as a Response whose status is 200.
 *
 * Where the service wants a token, the person is asked for it; where it is busy, it is asked again after the time that
 * it names. `watch` is told of both: `watch.token(refused)` resolves to a token, `watch.waiting(seconds)` only tells.
 * Throws Problem with a sentence to show, and AbortError when `signal` was aborted.
 */
export async function ask(path, { form, signal, watch }) {
  for (let tries = 1; ; tries += 1) {
    const token = sessionStorage.getItem(TOKEN);
    const response = await send(path, form, token, signal);
    if (response.ok) return response;
    if (response.status === 401) {
      await newToken(token, watch);
      signal?.throwIfAborted();
    } else if (response.status === 503 && tries < PATIENCE) {
      const seconds = Math.min(30, Math.max(1, Number(response.headers.get("Retry-After")) || 1));
      watch.waiting(seconds);
      await pause(seconds, signal);
    } else {
      throw new Problem(await sentence(response), response.status >= 500);
    }
  }
}

/** A form with one image in it, as the service takes it. */
export function formOf(file, name) {
  const form = new FormData();
  form.append("image", file, name);
  return form;
}

/** A path with its query; what is null is left out. */
export function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null);
  return `${path}?${new URLSearchParams(given)}`;
}

async function send(path, form, token, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    return await fetch(path, { method: form ? "POST" : "GET", body: form, headers, signal });
  } catch (error) {
    if (replaced(error)) throw error;
    throw new Problem("The service cannot be reached; is it still running?", true);
  }
}

// Requests that are refused at the same time ask the person once.
let asking = null;

async function newToken(refused, watch) {
  if (sessionStorage.getItem(TOKEN) !== refused) return; // another request has asked meanwhile
  asking ??= watch.token(refused !== null).then((token) => {
    sessionStorage.setItem(TOKEN, token);
    asking = null;
  });
  await asking;
}

async function sentence(response) {
  const answer = await response.json().catch(() => ({}));
  const said = typeof answer.error === "string" ? answer.error : `the service answered with status ${response.status}`;
  const upper = said.replace(/^[a-z]+(?= )/, (word) => word[0].toUpperCase() + word.slice(1)); // but no file's name
  return upper + (/[.!?]$/.test(said) ? "" : ".");
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
