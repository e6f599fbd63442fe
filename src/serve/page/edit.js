// A message that is changed where it stands: its text becomes a field, and what was there comes back when nobody wants the change.

import { button, element } from "./element.js";

/** Lets `text` be changed in the place of `old`; where that is not shown, before `next`. `label` names the field, `save` the button. */
export function edit({ old, next, actions, text, label, save, enterSends, wants, done }) {
  const area = element("textarea", "rewrite");
  area.value = text;
  area.setAttribute("aria-label", label);
  const keep = element("button", "primary", save);
  const row = element("div", "row", button("Cancel", () => stop(), "quiet"), keep);
  if (!enterSends) row.prepend(element("span", "hint-save", element("kbd", "", "Ctrl"), " ", element("kbd", "", "Enter"), " saves"));
  const form = element("form", "editing", area, row);
  const began = document.activeElement;
  function grow() {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
    keep.disabled = !wants(area.value.trim());
  }
  function stop() {
    if (shown) form.replaceWith(old);
    else form.remove();
    actions.hidden = false;
    began?.focus();
  }
  area.addEventListener("input", grow);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); stop(); }
    const sends = enterSends ? !event.shiftKey : event.ctrlKey || event.metaKey;
    if (event.key === "Enter" && sends && !event.isComposing) { event.preventDefault(); if (!keep.disabled) form.requestSubmit(); }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    // While an answer comes, nothing is changed; the field stays as long.
    if (document.body.classList.contains("busy")) return;
    const now = area.value.trim();
    // It looks as before when somebody comes back to it.
    stop();
    if (now !== text.trim()) done(now);
  });
  const shown = old.isConnected;
  if (shown) old.replaceWith(form);
  else next.before(form);
  actions.hidden = true;
  area.focus();
  grow();
  form.scrollIntoView({ block: "nearest" });
}
