// Sizes in words.

/** `2.1 GB/s`, `340 MB`. */
export function size(bytes, unit = "") {
  const steps = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 999.5 && at < steps.length - 1) { bytes /= 1000; at++; }
  return `${bytes >= 99.5 || at === 0 ? Math.round(bytes) : bytes.toPrecision(2)} ${steps[at]}${unit}`;
}
