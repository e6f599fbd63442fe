// The dialog of settings: for how answers are chosen, for all conversations of this browser, and the instructions of this one.

import { loadSettings, NUMBERS, saveSettings } from "./store.js";

const $ = (id) => document.getElementById(id);

let settings = loadSettings();

export const current = () => settings;

/** What the fields say where a server says nothing. */
const GREY = new Map();

/** The fields' grey texts: what the server does with this model where they are empty. */
export function defaults(of = {}) {
  const { elements } = $("settings").querySelector("form");
  for (const name of NUMBERS) {
    const field = elements[name];
    if (!GREY.has(name)) GREY.set(name, field.placeholder);
    field.placeholder = Number.isFinite(of[name]) ? String(of[name]) : GREY.get(name);
  }
  elements.system.placeholder = of.system || "none";
  elements.stop.placeholder = of.stop?.length ? of.stop.join("\n") : "none";
  elements.think.options[0].textContent = of.think ? `as the server does: ${of.think}` : "as the model does";
}

/** Lines that are not empty, as they are. */
const lines = (text) => text.split("\n").filter(Boolean);

/** Listens. `system()` are the instructions of this conversation, `change(text)` is told of others. */
export function listen({ system, change }) {
  const dialog = $("settings");
  const form = dialog.querySelector("form");
  const { elements } = form;
  let [kept, wasAlways] = [false, false];

  $("open-settings").addEventListener("click", () => {
    kept = false;
    elements.system.value = system();
    wasAlways = system() !== "" && settings.system === system();
    elements.always.checked = wasAlways;
    for (const name of NUMBERS) elements[name].value = settings[name] ?? "";
    elements.think.value = settings.think ?? "";
    elements.stop.value = (settings.stop ?? []).join("\n");
    elements.theme.value = globalThis.airrunTheme.chosen();
    // What is set is seen; a wrong number in what is folded away could not be found.
    form.querySelector(".more").open = [...form.querySelectorAll(".more :is(input, textarea)")].some(({ value }) => value);
    dialog.showModal();
  });
  // Only `Done` keeps anything, and only what makes sense.
  form.addEventListener("submit", () => { kept = true; });
  dialog.addEventListener("close", () => {
    if (!kept) return;
    const text = elements.system.value.trim();
    const next = {};
    // What was for all conversations, and is not any more, is for none but this.
    const always = elements.always.checked ? text : wasAlways ? "" : settings.system;
    if (always) next.system = always;
    for (const name of NUMBERS) if (elements[name].value !== "") next[name] = elements[name].valueAsNumber;
    if (elements.think.value) next.think = elements.think.value;
    if (lines(elements.stop.value).length) next.stop = lines(elements.stop.value);
    settings = next;
    globalThis.airrunTheme.choose(elements.theme.value);
    saveSettings(settings);
    change(text);
  });
  for (const id of ["close-settings", "cancel-settings"]) $(id).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  form.addEventListener("invalid", (event) => { const folded = event.target.closest("details"); if (folded) folded.open = true; }, true);
  $("reset").addEventListener("click", () => { for (const name of [...NUMBERS, "think", "stop"]) elements[name].value = ""; });
}
