// Asks the service: waits where it is busy, asks for a key where it wants one, turns what goes wrong into a Refusal.

import { $, fault, show } from "./dom.js";

const MOST_WAITS = 5; // refusals for load of one request before the person decides
const LONGEST_WAIT = 120; // seconds

let key = null; // in memory only: nothing outlives the page
let asking = null; // the promise of a key, shared by all requests that wait for one

// status 0: the service could not be reached. `field` is the part of the request at fault, where one is.
export class Refusal extends Error {
  constructor(status, { kind = "failed", message, field = null }, retryAfter = null) {
    super(message);
    Object.assign(this, { status, kind, field, retryAfter });
  }
}

// Return the response to a request. `body` is a value, or a string of NDJSON lines; `busy(seconds)` is called before each wait.
// Raises Refusal, or AbortError through `signal`.
export async function call(path, { body, signal, busy = () => {} } = {}) {
  for (let waits = 0; ; ) {
    const response = await send(path, body, signal);
    if (response.ok) return response;
    const refusal = await read(response);
    if (refusal.status === 401) {
      await newKey();
      signal?.throwIfAborted();
    } else if (refusal.status === 429 && waits++ < MOST_WAITS && refusal.retryAfter <= LONGEST_WAIT) {
      busy(refusal.retryAfter);
      await sleep(refusal.retryAfter, signal);
    } else {
      throw refusal;
    }
  }
}

async function send(path, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = typeof body === "string" ? "application/x-ndjson" : "application/json";
  try {
    return await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
      headers, signal, cache: "no-store", credentials: "same-origin",
    });
  } catch (error) {
    throw unreachable(error);
  }
}

// Also for a stream that breaks off after its headers.
export function unreachable(error) {
  if (error.name === "AbortError" || error instanceof Refusal) return error;
  return new Refusal(0, { kind: "unreachable", message: "The service cannot be reached. Is it running, and are you online?" });
}

async function read(response) {
  const after = response.headers.get("retry-after");
  const seconds = Number(after ?? 2);
  const until = Number.isNaN(seconds) ? (Date.parse(after) - Date.now()) / 1000 : seconds; // it may be a date, too
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch { /* a proxy's own page, not JSON */ }
  return new Refusal(response.status, { ...error, message: plain(response.status, error.message) }, Math.max(Math.ceil(until) || 2, 1));
}

function plain(status, told = `The service answered with status ${status}.`) {
  const known = {
    413: "The text is too large for this service.",
    429: "The service is still busy. Try again in a while.",
    503: "The service is stopping or not ready yet. Try again in a moment.",
    504: "The answer took too long. Try again, or a shorter text.",
  }[status];
  return known ? `${known} (${told})` : told;
}

function newKey() {
  asking ??= new Promise((resolve) => {
    const wrong = key !== null;
    const form = $("key"), field = $("key-text");
    fault(field, wrong ? "That key was refused. Check it and try again." : null);
    show(form);
    field.focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      if (!field.value.trim()) return fault(field, "Type the key first.");
      if (!/^[\x21-\x7e]+$/.test(field.value.trim())) return fault(field, "A key has no spaces and no accents.");
      key = field.value.trim();
      field.value = "";
      fault(field, null);
      show(form, false);
      asking = null;
      resolve();
    };
  });
  return asking;
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
