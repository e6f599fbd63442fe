// What this browser keeps: the conversation and the settings. A browser that keeps nothing is no failure.

const TALK = "airrun.talk";
const SETTINGS = "airrun.settings";

/** The names of the settings that go to the server as numbers. */
export const NUMBERS = ["temperature", "max_tokens", "top_p", "top_k", "min_p", "seed"];

function load(name) {
  try { return JSON.parse(localStorage.getItem(name)); } catch { return null; }
}

function save(name, value) {
  try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* full, or forbidden */ }
}

/** The kept conversation: messages of a role, a text, and how it ended. */
export function loadTalk() {
  const kept = load(TALK);
  if (!Array.isArray(kept)) return [];
  const isMessage = (m) => m && typeof m.content === "string" && (m.role === "user" || m.role === "assistant");
  return kept.filter(isMessage).map(({ role, content, note, thought }) => ({
    role, content,
    note: typeof note === "string" ? note : "",
    thought: typeof thought === "string" ? thought : "",
  }));
}

/** Keeps `messages`. */
export function saveTalk(messages) {
  save(TALK, messages.map(({ role, content, note, thought }) => ({ role, content, note, thought })));
}

/** The kept settings; only those that were set, and make sense. */
export function loadSettings() {
  const kept = load(SETTINGS) ?? {};
  const settings = {};
  if (typeof kept.system === "string" && kept.system.trim()) settings.system = kept.system;
  for (const name of NUMBERS) if (Number.isFinite(kept[name])) settings[name] = kept[name];
  return settings;
}

/** Keeps `settings`. */
export function saveSettings(settings) {
  save(SETTINGS, settings);
}
