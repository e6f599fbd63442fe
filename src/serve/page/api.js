// The server, as the page calls it: JSON, streams of events, and the key that it may ask for. Errors become sentences here.

/** Why a request failed, in words for people. */
export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const KEY = "airrun.key";

/** The key of this tab, if one was given. */
export function getKey() {
  try { return sessionStorage.getItem(KEY) ?? ""; } catch { return memory; }
}

let memory = "";

/** Keeps the key until the tab is closed. */
export function setKey(key) {
  memory = key;
  try { sessionStorage.setItem(KEY, key); } catch { /* it is kept until the page is left */ }
}

async function call(path, { body, signal } = {}) {
  const headers = {};
  const key = getKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server does not answer. Is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  let message = "";
  try {
    const { error } = JSON.parse(text);
    message = typeof error === "string" ? error : error?.message ?? "";
  } catch { /* not JSON: the status says what there is to say */ }
  if (!message && response.status === 429) message = "Too many requests are waiting.";
  if (!message && response.status === 503) message = "The server is not ready.";
  return new Failure(message || `The server answers ${response.status} ${response.statusText}`.trim(), response.status);
}

/** What a GET of `path` says. */
export async function get(path, signal) {
  return (await call(path, { signal })).json();
}

/** The events of a stream, each parsed, until it ends; `[DONE]` ends it. */
export async function* stream(path, options) {
  const response = await call(path, options);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    let event;
    try { event = JSON.parse(data); } catch { throw new Failure("The server sent something that is not an answer."); }
    if (event.error) throw new Failure(event.error.message ?? String(event.error));
    yield event;
  }
}

/** The data of server-sent events. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line === "" && data.length) { yield data.join("\n"); data = []; }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The connection broke before the answer was complete.");
  }
}
