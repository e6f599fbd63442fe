// One answer under way: it asks, takes what comes, and when the line breaks takes it up again where it was. It writes into a node of
// the conversation and calls back; it draws nothing.

import { end, Failure, stream } from "./api.js";
import { forModel } from "./live.js";
import { newId } from "./tree.js";

/** How long to wait before the server is tried again, at first and at most; and when to give up. (milliseconds) */
const AGAIN = [300, 5000];
const PATIENCE = 10 * 60_000;

/** How long a request takes to the server at most, where that lives. (milliseconds) */
const LATE = 1000;

const STREAMS = "/api/airrun/streams/";

const pause = (time) => new Promise((resume) => { setTimeout(resume, time); });

/** An answer that is being written into `node`. */
export class Run {
  #end = new AbortController();
  /** What the server keeps of an answer that is complete. */
  #kept = null;

  /** `hooks`: `grew()`, `told()` when there is news of the prompt or the line, `dropped(n)` for messages that were left out. */
  constructor(node, hooks) {
    Object.assign(this, { node, hooks, begin: performance.now(), first: 0, last: 0, pieces: 0, progress: null, seen: {}, usage: null, cut: false, lost: false, gaps: false });
    /** How much of the text was there before, when an answer is continued. */
    this.before = node.text.length;
  }

  get stopped() {
    return this.#end.signal.aborted;
  }

  /** Nobody wants more of it. */
  stop() {
    if (this.stopped) return;
    this.#end.abort();
    if (!this.node.stream) return;
    // A request that was on its way may arrive nevertheless.
    const stream = forModel(STREAMS + this.node.stream.name);
    setTimeout(() => end(stream), this.begun || this.gaps ? 0 : LATE);
  }

  /** Only stops listening: the server goes on. */
  leave() {
    this.left = true;
    this.#end.abort();
  }

  /** Asks for the answer; `ready` is called when its stream has a name, and resolves when that is kept. */
  async ask(body, ready) {
    this.node.stream = { name: newId(16), at: 0 };
    await ready();
    const headers = { "X-Airrun-Stream": this.node.stream.name };
    const begun = (answer) => {
      this.begun = true;
      this.hooks.dropped(Number(answer.get("x-airrun-dropped")) || 0);
    };
    await this.#take(() => stream("/v1/chat/completions", { body, headers, signal: this.#end.signal, begun }));
  }

  /** Goes on with an answer that was left. */
  async resume() {
    this.gaps = true;
    await this.#take(() => this.#rest());
  }

  #rest() {
    const { name, at } = this.node.stream;
    return stream(forModel(`${STREAMS}${name}?after=${at}`), { signal: this.#end.signal });
  }

  async #take(open) {
    try {
      await this.#events(open());
    } catch (error) {
      if (this.stopped || !["broken", "away"].includes(error.code) || !this.node.stream?.at) throw error;
      await this.#again(error);
    }
    this.#kept = this.node.stream?.name;
    this.node.stream = null;
  }

  /** The answer is kept here: the server need not keep it any more. Before that, whoever reloads the page finds the rest there. */
  forget() {
    if (this.#kept) end(forModel(STREAMS + this.#kept));
  }

  /** The line broke: tries until the server is there again, and has the rest. */
  async #again(reason) {
    this.gaps = true;
    const until = performance.now() + PATIENCE;
    let wait = AGAIN[0];
    while (performance.now() < until && !this.stopped) {
      this.lost = true;
      this.hooks.told();
      await pause(wait);
      wait = Math.min(2 * wait, AGAIN[1]);
      const { at } = this.node.stream;
      try {
        await this.#events(this.#rest());
        return;
      } catch (error) {
        if (this.stopped) throw error;
        if (error.status === 404) throw new Failure(reason.message, 0, "gone");
        // The model may still be loading.
        if (!["broken", "away"].includes(error.code) && error.status !== 503) throw error;
        if (this.node.stream.at > at) wait = AGAIN[0];
      }
    }
    throw reason;
  }

  async #events(events) {
    for await (const { id, event } of events) {
      if (this.lost) {
        this.lost = false;
        this.hooks.told();
      }
      this.#event(event);
      if (id && this.node.stream) this.node.stream.at = id;
    }
  }

  #event(event) {
    const choice = event.choices?.[0];
    const delta = choice?.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning ?? "";
    if (event.prompt_progress) {
      this.progress = { ...event.prompt_progress, at: performance.now() };
      this.hooks.told();
    }
    if (delta.content || thought) {
      this.last = performance.now();
      this.first ||= this.last;
      this.pieces++;
      this.node.text += delta.content ?? "";
      this.node.thought += thought;
      this.hooks.grew();
    }
    if (choice?.finish_reason) this.cut = choice.finish_reason === "length";
    if (event.usage) this.usage = { ...event.usage, timings: event.timings ?? event.usage.timings };
  }

  /** What there is to say about its speed: by the server's clock, or by the page's where nothing was missed. */
  figures() {
    const tokens = this.usage?.completion_tokens || this.pieces;
    if (!tokens) return null;
    const timings = this.usage?.timings;
    const seconds = timings ? timings.predicted_ms / 1000 : this.gaps ? 0 : (this.last - this.first) / 1000;
    // The first token comes with the prompt. What comes in one go was not timed by its arrival.
    const rate = tokens > 1 && seconds > 0.02 ? (tokens - 1) / seconds : 0;
    // Who asks waits for the server's queue, too; what went on without the page was timed by the server.
    const first = !this.gaps && this.first ? (this.first - this.begin) / 1000 : timings ? timings.prompt_ms / 1000 : 0;
    return { tokens, rate, first, context: this.context() };
  }

  /** Tokens of the context that are used, as far as is known. */
  context() {
    if (this.usage) return this.usage.prompt_tokens + this.usage.completion_tokens;
    return this.progress ? this.progress.total + this.pieces : 0;
  }
}
