// Keys for what buttons do, wherever the focus is, and the dialog that tells of them.

const $ = (id) => document.getElementById(id);

/** Keys, with Ctrl or the Mac's Command, and the button each presses. */
const BUTTONS = [
  { key: "o", shift: true, id: "fresh" },
  { key: "k", shift: false, id: "open-chats" },
  { key: ",", shift: false, id: "open-settings" },
  { key: "/", id: "open-keys" },
];

const MAC = /^Mac|^iP/.test(navigator.platform);

/** Listens. */
export function listen() {
  for (const node of document.querySelectorAll("kbd.command")) node.textContent = MAC ? "\u2318" : "Ctrl";
  document.addEventListener("keydown", (event) => {
    if (!(MAC ? event.metaKey : event.ctrlKey) || event.altKey || event.isComposing) return;
    // On some keyboards, a slash is typed with the shift key.
    const found = BUTTONS.find(({ key, shift = event.shiftKey }) => event.key.toLowerCase() === key && event.shiftKey === shift);
    if (!found) return;
    // Even where there is nothing to do, the browser's own meaning would surprise.
    event.preventDefault();
    const open = document.querySelector("dialog:modal");
    if (!open) $(found.id).click();
    else if (open.id === "chats" && found.id === "open-chats") open.close();
  });
  $("open-keys").addEventListener("click", () => $("keys").showModal());
  $("close-keys").addEventListener("click", () => $("keys").close());
  $("keys").addEventListener("click", (event) => { if (event.target === $("keys")) $("keys").close(); });
}
