// The server, as the page calls it: JSON, streams of events, and the key that it may ask for. Errors become sentences here.

/** Why a request failed, in words for people. */
export class Failure extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
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

async function call(path, { body, signal, method = body ? "POST" : "GET", headers: more = {} } = {}) {
  const headers = { ...more };
  const key = getKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server does not answer. Is it still running?", 0, "away");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  let [message, code] = ["", ""];
  try {
    const { error } = JSON.parse(text);
    message = typeof error === "string" ? error : error?.message ?? "";
    code = error?.code ?? "";
  } catch { /* not JSON: the status says what there is to say */ }
  if (!message && response.status === 429) message = "Too many requests are waiting.";
  if (!message && response.status === 503) message = "The server is not ready.";
  return new Failure(message || `The server answers ${response.status} ${response.statusText}`.trim(), response.status, code);
}

/** What a GET of `path` says. */
export async function get(path, signal) {
  return (await call(path, { signal })).json();
}

/** What the server says to `body`. */
export async function post(path, body) {
  return (await call(path, { body })).json();
}

/** Asks the server to end a stream; whether it hears that does not matter to the page. */
export function end(path) {
  call(path, { method: "DELETE" }).catch(() => {});
}

/**
 * The events of a stream, each parsed, with their ids, until `[DONE]`. `begun` gets the response's headers. A stream that ends
 * otherwise is broken if it should have ended so.
 */
export async function* stream(path, { begun, endless = false, ...options } = {}) {
  const response = await call(path, options);
  begun?.(response.headers);
  for await (const { id, data } of events(response.body)) {
    if (data === "[DONE]") return;
    let event;
    try { event = JSON.parse(data); } catch { throw new Failure("The server sent something that is not an answer."); }
    if (event.error) throw new Failure(event.error.message ?? String(event.error), event.error.status ?? 500);
    yield { id, event };
  }
  if (!endless) throw broken();
}

const broken = () => new Failure("The connection broke before the answer was complete.", 0, "broken");

/** Server-sent events: their ids and data. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  let id = 0;
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line.startsWith("id:")) id = Number(line.slice(3)) || id;
        if (line === "" && data.length) { yield { id, data: data.join("\n") }; data = []; }
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
    throw broken();
  }
}
