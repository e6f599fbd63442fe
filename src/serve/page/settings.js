// The dialog of settings: for how answers are chosen, for all conversations of this browser, and the instructions of this one.

import { loadSettings, NUMBERS, saveSettings } from "./store.js";

const $ = (id) => document.getElementById(id);

let settings = loadSettings();

export const current = () => settings;

/** The fields' grey texts: what the server does where they are empty. */
export function defaults(of = {}) {
  const form = $("settings").querySelector("form");
  for (const name of NUMBERS) if (Number.isFinite(of[name])) form.elements[name].placeholder = String(of[name]);
  form.elements.system.placeholder = of.system || "none";
}

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
    settings = next;
    saveSettings(settings);
    change(text);
  });
  for (const id of ["close-settings", "cancel-settings"]) $(id).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  $("reset").addEventListener("click", () => { for (const name of NUMBERS) elements[name].value = ""; });
}
