// How long it takes, in words: from how far a prompt is and what the model is doing. Values in, words out.

/** `50 s`, `1 min 20 s`, `2 h 5 min`: no more exact than it can be known. */
export function duration(seconds) {
  if (seconds < 9.5) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 58) return `${5 * Math.round(seconds / 5)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) {
    const rest = 10 * Math.round((seconds - 60 * minutes) / 10);
    if (rest === 60) return `${minutes + 1} min`;
    return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
  }
  const whole = Math.round(seconds / 60);
  if (whole < 60) return `${whole} min`;
  return `${Math.floor(whole / 60)} h${whole % 60 ? ` ${whole % 60} min` : ""}`;
}

/** `12 s`, `1 min 5 s`: what has passed is known. */
export function elapsed(seconds) {
  const whole = Math.floor(seconds);
  return whole < 60 ? `${whole} s` : whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : duration(seconds);
}

/** How much of the pass under way is over, from 0 to 1. */
const share = (now) => now?.n_runs > 1 ? Math.min(now.run, now.n_runs) / now.n_runs : 0;

/**
 * How far a prompt is: `part` of it is read, `left` seconds are left (0 if that is not known yet), and it is in pass `pass` of
 * `passes`. `progress` is what the server said before the pass under way, `now` what the model is doing.
 */
export function prompt(progress, now, time) {
  const { total, cache = 0, processed, batch, pass } = progress;
  const running = (time - progress.at) / 1000;
  // What is told at the beginning of a pass may still be about the last one.
  const done = running < 0.3 ? 0 : share(now);
  const read = processed - cache;
  const part = Math.min(1, (read + done * batch) / Math.max(1, total - cache));
  // Passes are alike while weights stream, whatever they compute; the last one has what is left over.
  const tokens = pass > 1 ? Math.max(batch, read / (pass - 1)) : batch;
  const later = tokens > 0 ? Math.ceil(Math.max(0, total - processed - batch) / tokens) : 0;
  const before = pass > 1 ? progress.time_ms / 1000 / (pass - 1) : 0;
  const present = done > 0.05 && running > 1 ? running / done : 0;
  // What is measured of the pass under way counts the more, the further it is.
  const length = before && present ? before * (1 - done) + present * done : before || present;
  return { part, left: length * (1 - done + later), pass, passes: pass + later };
}

/** What holds a streamed model back, by how long it waited for weights between two moments. */
export function binds(old, now) {
  if (!old || !now || now.at - old.at < 500) return "";
  const waited = (now.stall_seconds - old.stall_seconds) / ((now.at - old.at) / 1000);
  return waited > 0.5 ? "waiting for the disk" : "computing";
}

/** `Reading the prompt: 47 %, 1 min 20 s left (pass 1 of 2, block 53 of 60)`. */
export function promptInWords({ part, left, pass, passes }, block, seconds) {
  const place = [passes > 1 ? `pass ${pass} of ${passes}` : "", block ? `block ${block[0]} of ${block[1]}` : ""].filter(Boolean).join(", ");
  // What is over soon needs no numbers.
  const time = left > 0 && seconds > 2 ? `, ${duration(left)} left` : "";
  return `Reading the prompt: ${Math.floor(100 * part)} %${time}${place ? ` (${place})` : ""}`;
}

/** `Next token: block 12 of 60, 2.9 s each`. */
export function tokenInWords(block, rate) {
  const each = rate > 0 && rate < 2 ? `${(1 / rate).toFixed(1)} s each` : "";
  return `Next token${block || each ? ": " : ""}${[block ? `block ${block[0]} of ${block[1]}` : "", each].filter(Boolean).join(", ")}`;
}

/** `42 tokens · 3.1 tokens/s · first token 2.4 s`. */
export function figuresInWords(figures) {
  if (!figures?.tokens) return "";
  const rate = figures.rate >= 100 ? Math.round(figures.rate) : figures.rate?.toFixed(figures.rate < 1 ? 2 : 1);
  return [
    `${figures.tokens} token${figures.tokens === 1 ? "" : "s"}`,
    figures.rate > 0 ? `${rate} tokens/s` : "",
    figures.first > 0 ? `first token ${figures.first < 60 ? `${figures.first.toFixed(1)} s` : duration(figures.first)}` : "",
  ].filter(Boolean).join(" · ");
}
