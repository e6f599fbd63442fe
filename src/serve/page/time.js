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

/** How much a prediction counts against what was seen, at the beginning, and how fast that trust goes. */
const [TRUST, DOUBT] = [0.1, 12];

/** Seconds of work of which `share` took `elapsed` seconds, and that was predicted to take `predicted` in all, or 0 if nothing was. */
function whole(share, predicted, elapsed) {
  const trust = predicted > 0 ? TRUST * (1 - share) ** DOUBT : 0;
  return (elapsed + trust * predicted) / Math.max(share + trust, 1e-9);
}

/**
 * How far a prompt is: `part` of its time is over, `left` seconds are left (0 if that is not known yet), and it is in pass `pass` of
 * `passes`. `progress` is what the server said before the pass under way, `now` what the model is doing. What was seen last is noted
 * in `seen`: between two places time goes on as it did, but not further than to the next one. Who came back in the middle (`late`) was
 * not told when the pass began.
 */
export function prompt({ time_ms: before = 0, at, passes }, now, time, seen, late = false) {
  const running = (time - at) / 1000;
  // What is told at the beginning of a pass may still be about the last one, and at its end about the next.
  const lasts = now?.pass_seconds ?? 0;
  const fresh = running >= 0.3 && (late || lasts <= running + 0.5);
  const [from, to] = fresh ? [now?.pass_done ?? 0, now?.pass_next ?? 0] : [0, 0];
  const { before_ms: past = 0, pass_ms: present = 1, after_ms: later = 0, measured = false, pass = 1, of = 1 } = passes ?? {};
  const all = Math.max(past + present + later, 1e-9);
  const [reached, next] = [from, to].map((part) => Math.min(1, (past + part * present) / all));
  const elapsed = before / 1000 + (late ? Math.max(running, lasts) : running);
  if (reached > (seen.share ?? 0)) Object.assign(seen, { share: reached, elapsed });
  const done = Math.max(reached, seen.share ?? 0);
  const predicted = measured ? all / 1000 : 0;
  const known = predicted > 0 || seen.share > 0;
  const guess = known ? elapsed / Math.max(whole(seen.share ?? 0, predicted, seen.elapsed ?? 0), 1e-9) : 0;
  const part = Math.min(Math.max(guess, done), Math.max(next, done));
  return { part, left: known ? Math.max(0, whole(part, predicted, elapsed) - elapsed) : 0, pass, passes: of };
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
